/* SPDX-License-Identifier: Apache-2.0 */
/* Pure; compiles for the guest and the host. */
#include "tests/guest/guest_cmdline.h"

#include <stddef.h>

#include "tests/guest/guest_page.h"

enum key_type {
	KEY_NUMBER,
	KEY_SIZE,
	KEY_CHOICE,
	KEY_ADDRESS /* a.b.c.d or a.b.c.d/n */
};

struct key_choice {
	const char *name;
	uint64_t value;
};

struct key {
	const char *name;
	enum key_type type;
	size_t offset;                    /* of a uint64_t in struct guest_options */
	const struct key_choice *choices; /* ends with a NULL name */
};

static const struct key_choice contents[] = { { "zero", GUEST_CONTENT_ZERO },
					      { "text", GUEST_CONTENT_TEXT },
					      { "random", GUEST_CONTENT_RANDOM },
					      { NULL, 0 } };
static const struct key_choice stamps[] = { { "page", GUEST_STAMP_PAGE },
					    { "word", GUEST_STAMP_WORD },
					    { NULL, 0 } };
static const struct key_choice patterns[] = { { "seq", GUEST_PATTERN_SEQ },
					      { "random", GUEST_PATTERN_RANDOM },
					      { NULL, 0 } };
static const struct key_choice idles[] = { { "spin", GUEST_IDLE_SPIN },
					   { "halt", GUEST_IDLE_HALT },
					   { NULL, 0 } };
static const struct key_choice exits[] = { { "halt", GUEST_EXIT_HALT },
					   { "acpi", GUEST_EXIT_ACPI },
					   { "triple", GUEST_EXIT_TRIPLE },
					   { "reset", GUEST_EXIT_RESET },
					   { NULL, 0 } };
static const struct key_choice dumps[] = { { "none", GUEST_DUMP_NONE },
					   { "cpuid", GUEST_DUMP_CPUID },
					   { NULL, 0 } };

static const struct key_choice hvs[] = {
	{ "auto", GUEST_HV_AUTO }, { "on", GUEST_HV_ON }, { "off", GUEST_HV_OFF }, { NULL, 0 }
};
static const struct key_choice irqs[] = { { "event", GUEST_IRQ_EVENT },
					  { "poll", GUEST_IRQ_POLL },
					  { NULL, 0 } };
static const struct key_choice switches[] = { { "off", 0 }, { "on", 1 }, { NULL, 0 } };
static const struct key_choice disks[] = { { "none", GUEST_DISK_NONE },
					   { "stamp", GUEST_DISK_STAMP },
					   { "read", GUEST_DISK_READ },
					   { "write", GUEST_DISK_WRITE },
					   { "randread", GUEST_DISK_RANDREAD },
					   { "randwrite", GUEST_DISK_RANDWRITE },
					   { NULL, 0 } };
#define KEY(name, type, choices)                                                                   \
	{                                                                                          \
#name, type, offsetof(struct guest_options, name), choices                         \
	}
#define KEY_AS(text, name, type)                                                                   \
	{                                                                                          \
		text, type, offsetof(struct guest_options, name), NULL                             \
	}

static const struct key keys[] = {
	KEY(vcpus, KEY_NUMBER, NULL),
	KEY_AS("ws", ws_bytes, KEY_SIZE),
	KEY_AS("fill", fill_bytes, KEY_SIZE),
	KEY(rate, KEY_NUMBER, NULL),
	KEY(verify, KEY_NUMBER, NULL),
	KEY_AS("report", report_ms, KEY_NUMBER),
	KEY_AS("time", time_ms, KEY_NUMBER),
	KEY(tsc_khz, KEY_NUMBER, NULL),
	KEY(lapic_khz, KEY_NUMBER, NULL),
	KEY(testpage, KEY_NUMBER, NULL),
	KEY(content, KEY_CHOICE, contents),
	KEY(fill_content, KEY_CHOICE, contents),
	KEY(stamp, KEY_CHOICE, stamps),
	KEY(pattern, KEY_CHOICE, patterns),
	KEY(idle, KEY_CHOICE, idles),
	KEY(exit, KEY_CHOICE, exits),
	KEY(dump, KEY_CHOICE, dumps),
	KEY(hv, KEY_CHOICE, hvs),
	KEY(irq, KEY_CHOICE, irqs),
	KEY_AS("stall", stall_ms, KEY_NUMBER),
	KEY(ic, KEY_CHOICE, switches),
	KEY(disk, KEY_CHOICE, disks),
	KEY(disk_lun, KEY_NUMBER, NULL),
	KEY_AS("disk_offset", disk_offset_bytes, KEY_SIZE),
	KEY_AS("disk_bytes", disk_bytes, KEY_SIZE),
	KEY(disk_depth, KEY_NUMBER, NULL),
	KEY_AS("disk_io", disk_io_bytes, KEY_SIZE),
	KEY(disk_reads, KEY_NUMBER, NULL),
	KEY(disk_flush, KEY_NUMBER, NULL),
	KEY(disk_seed, KEY_NUMBER, NULL),
	KEY_AS("disk_time", disk_time_ms, KEY_NUMBER),
	KEY(disk_channels, KEY_NUMBER, NULL),
	KEY(net, KEY_ADDRESS, NULL),
	KEY(net_peer, KEY_ADDRESS, NULL),
};

static bool is_end(char letter)
{
	return letter == '\0' || letter == ' ' || letter == '\t' || letter == '\n';
}

static int digit_value(char letter)
{
	if (letter >= '0' && letter <= '9')
		return letter - '0';
	if (letter >= 'a' && letter <= 'f')
		return letter - 'a' + 10;
	if (letter >= 'A' && letter <= 'F')
		return letter - 'A' + 10;
	return 99;
}

static unsigned int suffix_shift(char letter)
{
	switch (letter) {
	case 'K':
		return 10;
	case 'M':
		return 20;
	case 'G':
		return 30;
	default:
		return 0;
	}
}

static bool parse_number(const char *text, bool with_suffix, uint64_t *ret_value)
{
	uint64_t base = 10, value = 0;
	unsigned int shift;

	if (text[0] == '0' && text[1] == 'x') {
		base = 16;
		text += 2;
	}
	if ((uint64_t)digit_value(*text) >= base)
		return false;
	for (; (uint64_t)digit_value(*text) < base; text++) {
		uint64_t digit = (uint64_t)digit_value(*text);

		if (value > (UINT64_MAX - digit) / base)
			return false;
		value = value * base + digit;
	}
	shift = with_suffix ? suffix_shift(*text) : 0;
	if (shift != 0)
		text++;
	if (!is_end(*text) || value > UINT64_MAX >> shift)
		return false;
	*ret_value = value << shift;
	return true;
}

/* An address, the first part in the highest byte, and << 32 the prefix length (24 if not said). */
static bool parse_address(const char *text, uint64_t *ret_value)
{
	uint64_t value = 0, prefix = 24;

	for (unsigned int i = 0; i < 4; i++) {
		uint64_t part = 0;

		if (digit_value(*text) > 9)
			return false;
		for (; digit_value(*text) <= 9 && part <= 255; text++)
			part = part * 10 + (uint64_t)digit_value(*text);
		if (part > 255 || (i < 3 && *text++ != '.'))
			return false;
		value = value << 8 | part;
	}
	if (*text == '/') {
		prefix = 0;
		for (text++; digit_value(*text) <= 9 && prefix <= 32; text++)
			prefix = prefix * 10 + (uint64_t)digit_value(*text);
	}
	if (!is_end(*text) || prefix == 0 || prefix > 32)
		return false;
	*ret_value = value | prefix << 32;
	return true;
}

/* The length of @name if @text starts with it and then @end, else 0. */
static size_t starts_with(const char *text, const char *name, bool word_end)
{
	size_t i = 0;

	for (; name[i] != '\0'; i++)
		if (text[i] != name[i])
			return 0;
	return (word_end ? is_end(text[i]) : text[i] == '=') ? i : 0;
}

static bool parse_choice(const char *text, const struct key_choice *choices, uint64_t *ret_value)
{
	for (; choices->name != NULL; choices++) {
		if (starts_with(text, choices->name, true) != 0) {
			*ret_value = choices->value;
			return true;
		}
	}
	return false;
}

static bool parse_word(const char *word, struct guest_options *options)
{
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		uint64_t *value = (uint64_t *)(void *)((char *)options + keys[i].offset);
		size_t length = starts_with(word, keys[i].name, false);

		if (length == 0)
			continue;
		word += length + 1;
		if (keys[i].type == KEY_CHOICE)
			return parse_choice(word, keys[i].choices, value);
		if (keys[i].type == KEY_ADDRESS)
			return parse_address(word, value);
		return parse_number(word, keys[i].type == KEY_SIZE, value);
	}
	return false;
}

bool guest_cmdline_parse(const char *text, struct guest_options *ret_options, char *ret_word)
{
	struct guest_options options = { .verify = 1000,
					 .report_ms = 1000,
					 .content = GUEST_CONTENT_TEXT,
					 .stamp = GUEST_STAMP_PAGE,
					 .pattern = GUEST_PATTERN_SEQ,
					 .idle = GUEST_IDLE_SPIN,
					 .exit = GUEST_EXIT_HALT,
					 .dump = GUEST_DUMP_NONE,
					 .hv = GUEST_HV_AUTO,
					 .irq = GUEST_IRQ_EVENT,
					 .stall_ms = 5000,
					 .disk_bytes = 16ULL << 20,
					 .disk_depth = 8,
					 .disk_io_bytes = 4096,
					 .disk_reads = 30,
					 .disk_flush = 64,
					 .disk_seed = 1,
					 .disk_time_ms = 1000 };

	for (;;) {
		size_t used = 0;

		while (*text != '\0' && is_end(*text))
			text++;
		if (*text == '\0')
			break;
		if (!parse_word(text, &options)) {
			for (; !is_end(text[used]) && used < GUEST_WORD_BYTES - 1; used++)
				ret_word[used] = text[used];
			ret_word[used] = '\0';
			return false;
		}
		while (!is_end(*text))
			text++;
	}
	if (options.fill_content == 0)
		options.fill_content = options.content;
	*ret_options = options;
	return true;
}

bool guest_cmdline_wants_hv(const struct guest_options *options)
{
	if (options->hv != GUEST_HV_AUTO)
		return options->hv == GUEST_HV_ON;
	return options->ic != 0 || options->disk != GUEST_DISK_NONE || options->net != 0;
}
