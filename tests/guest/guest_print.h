/* SPDX-License-Identifier: Apache-2.0 */
/* Lines on the serial console.  Ring 3; any vCPU; a line is never mixed with another. */
#ifndef GUEST_PRINT_H
#define GUEST_PRINT_H

#include <stdint.h>

#define GUEST_LINE_BYTES 256

struct guest_line {
	uint32_t used;
	char text[GUEST_LINE_BYTES]; /* what does not fit is cut */
};

void guest_line_text(struct guest_line *line, const char *text);
void guest_line_number(struct guest_line *line, const char *name, uint64_t value);
void guest_line_hex(struct guest_line *line, const char *name, uint64_t value, unsigned int digits);

/** guest_line_send - add the line end and print; @line is empty afterwards. */
void guest_line_send(struct guest_line *line);

/** guest_die - print "guest: FATAL <what><detail>" and stop every vCPU. */
_Noreturn void guest_die(const char *what, const char *detail);

#endif
