/* SPDX-License-Identifier: Apache-2.0 */
/* The plan of a peer: refused in one line, or the same again when it is written. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_migrate_plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_again(const struct vm_plan *plan, struct vm_plan *again)
{
	char *text = NULL;
	char *second = NULL;

	if (vm_plan_encode(plan, &text, NULL) < 0)
		return; /* no memory */
	if (vm_plan_decode(text, again, NULL) < 0 || vm_plan_encode(again, &second, NULL) < 0 ||
	    strcmp(text, second) != 0)
		abort();
	free(second);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct vm_plan plan;
	static struct vm_plan again;
	static struct mig_findings findings;
	struct base_error err = { 0 };
	char *text = NULL;

	if (size > MIG_CONFIG_BYTES)
		return 0;
	text = malloc(size + 1);
	if (text == NULL)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	if (vm_plan_decode(text, &plan, &err) < 0) {
		if (err.code == 0 || err.text[0] == '\0' || strpbrk(err.text, "\n\r\x1b") != NULL)
			abort();
	} else {
		check_again(&plan, &again);
		memset(&findings, 0, sizeof(findings));
		vm_plan_compare(&plan, &again, &findings);
		if (findings.count != 0)
			abort();
	}
	free(text);
	return 0;
}
