/* SPDX-License-Identifier: Apache-2.0 */
/* Comparison of CPUID tables, feature by feature.  Pure. */
#include "hypervisor/cpu_check.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "hypervisor/cpu_features.h"

#define LEAF_AMD_FEATURES     0x80000001U
#define AMD_FEATURES_EDX_ECHO 0x0183f3ffU /* on AMD these bits repeat leaf 1 EDX */
#define XSAVE_COMPONENTS      63U         /* bit 63 is reserved for another meaning */
#define XSAVE_FIRST_PLACED    2U          /* x87 and SSE lie in the legacy area */
#define ADDRESS_BITS_UNTOLD   36U /* a processor without leaf 0x80000008: SDM volume 3, 4.1.4 */

/* A number in a CPUID register that a host must have at least as large as the VM. */
struct number {
	char name[24];
	uint32_t leaf;
	uint32_t subleaf;
	enum hv_cpuid_reg reg;
	uint32_t shift;
	uint32_t mask;
	uint32_t untold; /* what 0 stands for */
};

static const struct number numbers[] = {
	{ "MAXPHYADDR", 0x80000008, 0, HV_CPUID_EAX, 0, 0xff, ADDRESS_BITS_UNTOLD },
	{ "linear address bits", 0x80000008, 0, HV_CPUID_EAX, 8, 0xff, 48 },
	{ "PMU version", 0xa, 0, HV_CPUID_EAX, 0, 0xff, 0 },
	{ "PMU counters", 0xa, 0, HV_CPUID_EAX, 8, 0xff, 0 },
	{ "PMU counter bits", 0xa, 0, HV_CPUID_EAX, 16, 0xff, 0 },
	{ "PMU fixed counters", 0xa, 0, HV_CPUID_EDX, 0, 0x1f, 0 },
	{ "AVX10 version", 0x24, 0, HV_CPUID_EBX, 0, 0xff, 0 },
};

/* Two tables under comparison, and what the report says of each. */
struct pair {
	const struct hv_cpuid_table *left;
	const struct hv_cpuid_table *right;
	struct hv_cpu_report *report;
	bool read_back; /* left = asked, right = seen; else left = VM, right = host */
};

static void add(struct hv_cpu_report *report, enum hv_cpu_finding_kind kind, const char *name,
		const char *detail)
{
	struct hv_cpu_finding *finding;

	if (report->count == HV_CPU_FINDINGS_MAX) {
		report->truncated = true;
		return;
	}
	finding = &report->findings[report->count++];
	finding->kind = kind;
	(void)snprintf(finding->name, sizeof(finding->name), "%.31s", name);
	(void)snprintf(finding->text, sizeof(finding->text), "%.31s: %.93s", name, detail);
}

static void add_kind(struct hv_cpu_report *report, enum hv_cpu_finding_kind kind, const char *name)
{
	static const char *const details[HV_CPU_FINDING_KINDS] = {
		[HV_CPU_FINDING_MISSING] = "VM uses it, host has not",
		[HV_CPU_FINDING_VISIBLE] = "asked hidden, the guest sees it",
		[HV_CPU_FINDING_HIDDEN] = "asked visible, the guest does not see it",
	};

	add(report, kind, name, details[kind]);
}

/* A value that differs: left and right in the words of the pair. */
static void add_value(const struct pair *pair, const char *name, const char *left,
		      const char *right)
{
	char detail[HV_CPU_FINDING_TEXT_BYTES];

	(void)snprintf(detail, sizeof(detail),
		       pair->read_back ? "asked %.31s, guest sees %.31s" : "VM %.31s, host %.31s",
		       left, right);
	add(pair->report, HV_CPU_FINDING_VALUE, name, detail);
}

static void compare_vendor(const struct pair *pair)
{
	struct hv_cpuid_vendor left = hv_cpuid_vendor(pair->left);
	struct hv_cpuid_vendor right = hv_cpuid_vendor(pair->right);

	if (strcmp(left.text, right.text) != 0)
		add_value(pair, "vendor", left.text, right.text);
}

/* Bits of a feature register that are no statement about the host. */
static uint32_t ignored_bits(const struct pair *pair, const struct hv_cpu_register *where)
{
	uint32_t ignored = 0;

	if (where->leaf == LEAF_AMD_FEATURES && where->reg == HV_CPUID_EDX)
		ignored |= AMD_FEATURES_EDX_ECHO;
	for (uint32_t i = 0; i < hv_cpu_feature_count(); i++) {
		const struct hv_cpu_feature *feature = hv_cpu_feature_at(i);

		if (feature->leaf != where->leaf || feature->subleaf != where->subleaf ||
		    feature->reg != where->reg)
			continue;
		if (feature->level == HV_CPU_LEVEL_GUEST ||
		    (feature->level == HV_CPU_LEVEL_VMM && !pair->read_back))
			ignored |= 1U << feature->bit;
	}
	return ignored;
}

static void compare_bits(const struct pair *pair, const struct hv_cpu_register *where)
{
	static const char *const registers[HV_CPUID_REGS] = { "", "eax", "ebx", "ecx", "edx" };
	uint32_t left = hv_cpuid_register(pair->left, where->leaf, where->subleaf, where->reg);
	uint32_t right = hv_cpuid_register(pair->right, where->leaf, where->subleaf, where->reg);
	uint32_t differ = pair->read_back ? left ^ right : left & ~right;

	differ &= ~ignored_bits(pair, where);
	for (uint32_t bit = 0; bit < 32; bit++) {
		const struct hv_cpu_feature *feature = hv_cpu_feature_by_bit(where, bit);
		enum hv_cpu_finding_kind kind = HV_CPU_FINDING_MISSING;
		char name[HV_CPU_FINDING_NAME_BYTES];

		if ((differ >> bit & 1) == 0)
			continue;
		if (pair->read_back)
			kind = (left >> bit & 1) != 0 ? HV_CPU_FINDING_HIDDEN
						      : HV_CPU_FINDING_VISIBLE;
		if (feature != NULL)
			(void)snprintf(name, sizeof(name), "%s", feature->name);
		else
			(void)snprintf(name, sizeof(name),
				       "CPUID.%" PRIx32 ".%" PRIx32 ":%s[%" PRIu32 "]", where->leaf,
				       where->subleaf, registers[where->reg], bit);
		add_kind(pair->report, kind, name);
	}
}

static void xsave_name(uint32_t number, char name[HV_CPU_FINDING_NAME_BYTES])
{
	const char *known = hv_cpu_xsave_name(number);

	if (known != NULL)
		(void)snprintf(name, HV_CPU_FINDING_NAME_BYTES, "XSAVE %s", known);
	else
		(void)snprintf(name, HV_CPU_FINDING_NAME_BYTES, "XSAVE component %" PRIu32, number);
}

/* XSAVES components (IA32_XSS) that a table shows. */
static uint64_t xss_mask(const struct hv_cpuid_table *table)
{
	struct hv_cpuid_entry leaf = hv_cpuid_get(table, 0xd, 1);

	return hv_cpuid_xcr0_mask(table) == 0 ? 0 : (uint64_t)leaf.edx << 32 | leaf.ecx;
}

static void compare_xsave_place(const struct pair *pair, uint32_t number, const char *name)
{
	struct hv_cpuid_entry left = hv_cpuid_get(pair->left, 0xd, number);
	struct hv_cpuid_entry right = hv_cpuid_get(pair->right, 0xd, number);
	char left_text[32];
	char right_text[32];

	if (number < XSAVE_FIRST_PLACED || (left.eax == right.eax && left.ebx == right.ebx))
		return;
	(void)snprintf(left_text, sizeof(left_text), "%" PRIu32 " bytes at %" PRIu32, left.eax,
		       left.ebx);
	(void)snprintf(right_text, sizeof(right_text), "%" PRIu32 " bytes at %" PRIu32, right.eax,
		       right.ebx);
	add_value(pair, name, left_text, right_text);
}

static void compare_xsave(const struct pair *pair)
{
	uint64_t left = hv_cpuid_xcr0_mask(pair->left) | xss_mask(pair->left);
	uint64_t right = hv_cpuid_xcr0_mask(pair->right) | xss_mask(pair->right);

	for (uint32_t number = 0; number < XSAVE_COMPONENTS; number++) {
		bool in_left = (left >> number & 1) != 0;
		bool in_right = (right >> number & 1) != 0;
		char name[HV_CPU_FINDING_NAME_BYTES];

		xsave_name(number, name);
		if (in_left && in_right)
			compare_xsave_place(pair, number, name);
		else if (in_left && pair->read_back)
			add_kind(pair->report, HV_CPU_FINDING_HIDDEN, name);
		else if (in_left)
			add_kind(pair->report, HV_CPU_FINDING_MISSING, name);
		else if (in_right && pair->read_back)
			add_kind(pair->report, HV_CPU_FINDING_VISIBLE, name);
	}
}

static uint32_t number_in(const struct hv_cpuid_table *table, const struct number *number)
{
	uint32_t reg = hv_cpuid_register(table, number->leaf, number->subleaf, number->reg);
	uint32_t value = reg >> number->shift & number->mask;

	return value != 0 ? value : number->untold;
}

static void compare_numbers(const struct pair *pair)
{
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		uint32_t left = number_in(pair->left, &numbers[i]);
		uint32_t right = number_in(pair->right, &numbers[i]);
		char left_text[16];
		char right_text[16];

		if (pair->read_back ? left == right : left <= right)
			continue;
		(void)snprintf(left_text, sizeof(left_text), "%" PRIu32, left);
		(void)snprintf(right_text, sizeof(right_text), "%" PRIu32, right);
		add_value(pair, numbers[i].name, left_text, right_text);
	}
}

static void compare_signature(const struct pair *pair)
{
	uint32_t left = hv_cpuid_register(pair->left, 1, 0, HV_CPUID_EAX);
	uint32_t right = hv_cpuid_register(pair->right, 1, 0, HV_CPUID_EAX);
	char left_text[16];
	char right_text[16];

	if (left == right)
		return;
	(void)snprintf(left_text, sizeof(left_text), "0x%" PRIx32, left);
	(void)snprintf(right_text, sizeof(right_text), "0x%" PRIx32, right);
	add_value(pair, "family/model/stepping", left_text, right_text);
}

static uint32_t compare(const struct pair *pair)
{
	memset(pair->report, 0, sizeof(*pair->report));
	compare_vendor(pair);
	if (pair->read_back)
		compare_signature(pair);
	for (uint32_t i = 0; i < hv_cpu_register_count(); i++)
		compare_bits(pair, hv_cpu_register_at(i));
	compare_xsave(pair);
	compare_numbers(pair);
	return pair->report->count;
}

uint32_t hv_cpu_check(const struct hv_cpuid_table *vm, const struct hv_cpuid_table *host,
		      struct hv_cpu_report *ret_report)
{
	struct pair pair = { .left = vm, .right = host, .report = ret_report };

	return compare(&pair);
}

uint32_t hv_cpu_compare_honoured(const struct hv_cpuid_table *asked,
				 const struct hv_cpuid_table *seen,
				 struct hv_cpu_report *ret_report)
{
	struct pair pair = {
		.left = asked,
		.right = seen,
		.report = ret_report,
		.read_back = true,
	};

	return compare(&pair);
}

/* A line that grows until it is full; then it ends in "...". */
struct line {
	char *to;
	size_t size_bytes;
	size_t used_bytes;
	bool full;
};

static void line_add(struct line *line, const char *before, const char *text)
{
	size_t left = line->size_bytes - line->used_bytes;
	int written;

	if (line->full)
		return;
	written = snprintf(line->to + line->used_bytes, left, "%s%s", before, text);
	if (written >= 0 && (size_t)written < left) {
		line->used_bytes += (size_t)written;
		return;
	}
	line->full = true;
	if (line->size_bytes >= sizeof("..."))
		memcpy(line->to + line->size_bytes - sizeof("..."), "...", sizeof("..."));
}

char *hv_cpu_report_text(const struct hv_cpu_report *report, char *to, size_t size_bytes)
{
	static const char *const heads[HV_CPU_FINDING_KINDS] = {
		[HV_CPU_FINDING_MISSING] = "host has not",
		[HV_CPU_FINDING_VISIBLE] = "asked hidden but seen",
		[HV_CPU_FINDING_HIDDEN] = "asked visible but not seen",
	};
	/* what rules a host out as a whole comes first, then features by kind */
	static const enum hv_cpu_finding_kind order[] = {
		HV_CPU_FINDING_VALUE,
		HV_CPU_FINDING_MISSING,
		HV_CPU_FINDING_VISIBLE,
		HV_CPU_FINDING_HIDDEN,
	};
	struct line line = { .to = to, .size_bytes = size_bytes };

	if (size_bytes == 0)
		return to;
	to[0] = '\0';
	for (size_t k = 0; k < sizeof(order) / sizeof(order[0]); k++) {
		bool first = true;

		for (uint32_t i = 0; i < report->count; i++) {
			const struct hv_cpu_finding *finding = &report->findings[i];

			if (finding->kind != order[k])
				continue;
			if (heads[order[k]] == NULL) {
				line_add(&line, line.used_bytes > 0 ? "; " : "", finding->text);
				continue;
			}
			if (first) {
				line_add(&line, line.used_bytes > 0 ? "; " : "", heads[order[k]]);
				line_add(&line, ": ", finding->name);
			} else {
				line_add(&line, ", ", finding->name);
			}
			first = false;
		}
	}
	if (report->truncated)
		line_add(&line, ", ", "and more");
	return to;
}
