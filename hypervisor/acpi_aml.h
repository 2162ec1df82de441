/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing AML, the byte code of ACPI tables: ACPI specification 6.4, chapter 20
 * (grammar) and section 6.4 (resource descriptors).
 *
 * A builder is a value over its own buffer, filled from one thread.  Things with a
 * length (scope, device, package, resources) are begun and ended like brackets; the
 * length is put in at the end.  A lack of memory sticks in `bytes.failed`; wrong
 * nesting and malformed names are bugs of the caller.
 */
#ifndef HYPERVISOR_ACPI_AML_H
#define HYPERVISOR_ACPI_AML_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

#define HV_AML_DEPTH_MAX 8u /* brackets open at once; our tables use four */

enum hv_aml_bracket {
	HV_AML_INVALID,
	HV_AML_PLAIN,     /* length, content */
	HV_AML_RESOURCES, /* length, byte count, content, end tag */
	HV_AML_BRACKETS
};

/* Zero-initialised is empty; hv_aml_fini() releases. */
struct hv_aml {
	struct base_buffer bytes;
	uint32_t depth;
	struct {
		enum hv_aml_bracket kind;
		size_t content; /* offset of the first byte behind the length to be */
	} open[HV_AML_DEPTH_MAX];
};

void hv_aml_fini(struct hv_aml *aml);

/* @name: up to four characters [A-Z_0-9], with "\" in front for the root: "\_SB", "COM1". */
void hv_aml_scope_begin(struct hv_aml *aml, const char *name);
void hv_aml_device_begin(struct hv_aml *aml, const char *name);
void hv_aml_package_begin(struct hv_aml *aml, uint8_t element_count);
void hv_aml_resources_begin(struct hv_aml *aml); /* a buffer of resource descriptors, for _CRS */
void hv_aml_end(struct hv_aml *aml);             /* ends what was begun last */

/* Name (@name, <the next object>). */
void hv_aml_name(struct hv_aml *aml, const char *name);

/* Objects. */
void hv_aml_integer(struct hv_aml *aml, uint64_t value);
void hv_aml_string(struct hv_aml *aml, const char *text);  /* ASCII */
void hv_aml_eisa_id(struct hv_aml *aml, const char id[8]); /* "PNP0501" as a number */

/* Resource descriptors, between resources_begin and end. */
void hv_aml_io_ports(struct hv_aml *aml, uint16_t base, uint8_t port_count); /* 16-bit decode */
void hv_aml_irq(struct hv_aml *aml, uint32_t irq); /* ISA: 0..15, edge, active high */

#endif
