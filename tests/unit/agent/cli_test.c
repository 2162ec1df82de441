/* SPDX-License-Identifier: Apache-2.0 */
/* The command line: sizes, options by table, dispatch, help, man pages. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/cli.h"
#include "agent/cli_disk_foreign.h"
#include "agent/cli_disk_priv.h"
#include "agent/cli_progress.h"
#include "base/cleanup.h"
#include "base/file.h"

static const struct cli_verb *verb_of(const char *name)
{
	for (size_t i = 0; i < cli_nouns[0].verb_count; i++)
		if (strcmp(cli_nouns[0].verbs[i].name, name) == 0)
			return &cli_nouns[0].verbs[i];
	cr_assert(false, "no verb %s", name);
	return NULL;
}

/* @words: the verb, then its arguments, separated by blanks. */
static int parse(const char *words, struct cli_disk_args *args, struct base_error *err)
{
	static char text[512];
	char *argv[32];
	char *save = NULL;
	int argc = 0;

	(void)snprintf(text, sizeof(text), "%s", words);
	for (char *word = strtok_r(text, " ", &save); word != NULL && argc < 32;
	     word = strtok_r(NULL, " ", &save))
		argv[argc++] = word;
	*args = (struct cli_disk_args){ 0 };
	*err = (struct base_error){ 0 };
	return cli_parse(verb_of(argv[0]), argc - 1, argv + 1, args, err);
}

Test(cli, sizes)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{ "0", 0 },
		{ "512", 512 },
		{ "512B", 512 },
		{ "1k", 1024 },
		{ "1K", 1024 },
		{ "64KiB", 65536 },
		{ "64KB", 65536 },
		{ "10G", 10ULL << 30 },
		{ "1.5T", 3ULL << 39 },
		{ "0.5K", 512 },
		{ "64T", 64ULL << 40 },
		{ "2.25P", 9ULL << 48 },
		{ "8191P", 8191ULL << 50 },
		{ "9223372036854775807", INT64_MAX },
	};
	static const char *const bad[] = {
		"",
		"G",
		"-1",
		"+1",
		"1X",
		"1GG",
		"1 G",
		"1.G",
		".5G",
		"0x10",
		"1e3",
		"0.3",
		"0.3K",
		"8192P",
		"9223372036854775808",
		"1.5",
		"1.0000000001G",
		"99999999999999999999",
	};
	uint64_t bytes;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		cr_expect(cli_size_parse(good[i].text, &bytes), "%s", good[i].text);
		cr_expect_eq(bytes, good[i].bytes, "%s", good[i].text);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_expect_not(cli_size_parse(bad[i], &bytes), "%s", bad[i]);
}

Test(cli, sizes_shown)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} shown[] = {
		{ 0, "0 bytes" },           { 1023, "1023 bytes" },
		{ 1024, "1 KiB" },          { 1536, "1.5 KiB" },
		{ 10ULL << 30, "10 GiB" },  { 3ULL << 39, "1.5 TiB" },
		{ 1025ULL << 20, "1 GiB" }, { 1050ULL << 20, "1.02 GiB" },
		{ 64ULL << 40, "64 TiB" },  { UINT64_MAX, "16383.9 PiB" },
	};
	char text[CLI_SIZE_SHOWN_BYTES];

	for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++) {
		cli_size_show(shown[i].bytes, text);
		cr_expect_str_eq(text, shown[i].text);
	}
}

Test(cli, options_long_and_short)
{
	struct cli_disk_args args;
	struct base_error err;

	cr_assert_eq(
		parse("create -fvhdx --block-size=1M a.vhdx --sector 4096 10G -nq", &args, &err), 0,
		"%s", err.text);
	cr_assert_eq(args.format, CLI_DISK_VHDX);
	cr_assert_eq(args.block_bytes, 1U << 20);
	cr_assert_eq(args.logical_sector_bytes, 4096);
	cr_assert_eq(args.size_bytes, 10ULL << 30);
	cr_assert_str_eq(args.name, "a.vhdx");
	cr_assert(args.dry_run && args.quiet);
	cr_assert_eq(parse("create -o subformat=fixed,block_size=2M -f vpc a 1G", &args, &err), 0);
	cr_assert_eq(args.kind, DISK_FIXED);
	cr_assert_eq(args.block_bytes, 2U << 20);
	cr_assert_eq(args.format, CLI_DISK_VHD);
	cr_assert_eq(parse("resize a -1G --shrink", &args, &err), 0);
	cr_assert_eq(args.delta.sign, '-');
	cr_assert_eq(args.delta.bytes, 1ULL << 30);
	cr_assert_eq(parse("resize -- -a +512", &args, &err), 0);
	cr_assert_str_eq(args.name, "-a");
	cr_assert_eq(args.delta.sign, '+');
	cr_assert_eq(parse("resize a 2T", &args, &err), 0);
	cr_assert_eq(args.delta.sign, '=');
	cr_assert_eq(parse("convert -pO raw -f qcow2 a b", &args, &err), 0);
	cr_assert_eq(args.other_format, CLI_DISK_RAW);
	cr_assert_eq(args.format, CLI_DISK_QCOW2);
	cr_assert_str_eq(args.other, "b");
}

static const struct {
	const char *words;
	const char *expected;
} refused[] = {
	{ "create", "operand NAME: not given: expected the name of a file" },
	{ "create a 1G b", "operand 'b': expected no more operands" },
	{ "create a 10X",
	  "operand SIZE: value '10X': expected a number of bytes, or one with suffix" },
	{ "create a 0", "operand SIZE: value '0': expected a number of bytes" },
	{ "create -f ext4 a 1G", "option '-f': value 'ext4': expected vhdx, vhd, vpc or raw" },
	{ "create --format=qcow2 a 1G", "option '--format': value 'qcow2': expected vhdx, vhd" },
	{ "create -f", "option '-f': no value: expected FORMAT" },
	{ "create -f raw -f raw a", "option '-f': value 'raw': expected it once" },
	{ "create --fixed=yes a 1G", "option '--fixed': value 'yes': expected no value" },
	{ "create --colour red a", "option '--colour': expected an option of 'create'; --help" },
	{ "create -x a", "option '-x': expected an option of 'create'; --help lists them" },
	{ "create -o a b", "option '-o': value 'a': expected KEY=VALUE,..." },
	{ "create -o colour=red b", "option '-o': key 'colour': expected a known key; --help" },
	{ "create -o block_size=x b", "option '-o block_size': value 'x': expected a number of" },
	{ "create -o block_size=1M,block_size=1M b",
	  "option '-o block_size': value '1M': expected it once" },
	{ "create -o subformat=thin b",
	  "option '-o subformat': value 'thin': expected fixed or dyn" },
	{ "resize a 1,5G", "operand SIZE: value '1,5G': expected SIZE, +SIZE or -SIZE: a number" },
	{ "resize a +-1", "operand SIZE: value '+-1': expected SIZE, +SIZE or -SIZE" },
	{ "compare a", "operand NAME2: not given: expected the name of a file" },
	{ "check -r some a", "option '-r': value 'some': expected leaks or all" },
	{ "info --output xml a", "option '--output': value 'xml': expected human or json" },
};

Test(cli, refused)
{
	struct cli_disk_args args;
	struct base_error err;

	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		cr_expect_eq(parse(refused[i].words, &args, &err), -EINVAL, "%s", refused[i].words);
		cr_expect(strncmp(err.text, refused[i].expected, strlen(refused[i].expected)) == 0,
			  "'%s': got '%s', expected '%s'", refused[i].words, err.text,
			  refused[i].expected);
	}
	/* An empty argument is no name. */
	char empty[] = "";
	char *argv[] = { empty };

	args = (struct cli_disk_args){ 0 };
	cr_expect_eq(cli_parse(verb_of("info"), 1, argv, &args, &err), -EINVAL);
	cr_expect_str_eq(err.text, "operand NAME: value '': expected the name of a file");
}

/* Rows are consistent: the fields exist, letters and names are unique in a verb. */
Test(cli, tables)
{
	for (size_t n = 0; n < cli_noun_count; n++) {
		cr_assert_leq(cli_nouns[n].args_bytes, CLI_ARGS_BYTES_MAX);
		for (size_t v = 0; v < cli_nouns[n].verb_count; v++) {
			const struct cli_verb *verb = &cli_nouns[n].verbs[v];

			cr_assert_leq(verb->row_count, CLI_ROWS_MAX);
			cr_assert_not_null(verb->run);
			for (size_t i = 0; i < verb->row_count; i++) {
				const struct cli_row *row = &verb->rows[i];

				cr_assert_not_null(row->help, "%s row %zu", verb->name, i);
				cr_assert(row->type == CLI_FLAG || row->value != NULL);
				cr_assert((row->type == CLI_CHOICE) == (row->words != NULL));
				cr_assert_lt(row->offset, cli_nouns[n].args_bytes);
				for (size_t j = 0; j < i; j++) {
					const struct cli_row *other = &verb->rows[j];

					cr_assert(row->letter == 0 || row->letter != other->letter,
						  "%s -%c", verb->name, row->letter);
					cr_assert(row->name == NULL || other->name == NULL ||
						  strcmp(row->name, other->name) != 0);
				}
			}
		}
	}
}

static void page(const struct cli_noun *noun, const char *file)
{
	BASE_FREE char *made = NULL;
	BASE_FREE uint8_t *committed = NULL;
	char command[256];
	size_t made_bytes = 0;
	size_t committed_bytes = 0;
	FILE *out = open_memstream(&made, &made_bytes);
	struct base_error err = { 0 };

	cli_man(out, cli_nouns, cli_noun_count, noun);
	cr_assert_eq(fclose(out), 0);
	cr_assert_eq(base_file_load(file, 1 << 20, &committed, &committed_bytes, &err), 0, "%s",
		     err.text);
	cr_assert(committed_bytes == made_bytes && memcmp(committed, made, made_bytes) == 0,
		  "write it anew: godwit %s --man > %s", noun != NULL ? noun->name : "", file);
	if (system("command -v mandoc >/dev/null 2>&1") != 0)
		cr_skip("mandoc is not installed");
	(void)snprintf(command, sizeof(command), "mandoc -Tlint -Wwarning %s", file);
	cr_assert_eq(system(command), 0);
}

Test(cli, committed_man_pages_are_current)
{
	page(NULL, TEST_SOURCE_DIR "/docs/man/godwit.1");
	page(&cli_nouns[0], TEST_SOURCE_DIR "/docs/man/godwit-disk.1");
	page(&cli_nouns[1], TEST_SOURCE_DIR "/docs/man/godwit-vm.1");
}

Test(cli, help_names_every_option)
{
	BASE_FREE char *text = NULL;
	size_t text_bytes = 0;
	FILE *out = open_memstream(&text, &text_bytes);
	const struct cli_verb *verb = verb_of("convert");

	cli_help(out, cli_nouns, cli_noun_count, &cli_nouns[0], verb);
	cr_assert_eq(fclose(out), 0);
	for (size_t i = 0; i < verb->row_count; i++)
		if (verb->rows[i].name != NULL)
			cr_expect_not_null(strstr(text, verb->rows[i].name), "%s",
					   verb->rows[i].name);
	cr_expect_not_null(strstr(text, "usage: godwit disk convert [OPTION]... SOURCE TARGET"));
}

Test(cli, progress_lines)
{
	char line[CLI_PROGRESS_LINE_BYTES];
	struct cli_progress_at at = { .what = "convert", .total_bytes = 1000, .columns = 80 };

	cli_progress_line(&at, line);
	cr_expect_str_eq(line,
			 "convert [                                                  ]   0.0 %");
	at = (struct cli_progress_at){ .what = "convert",
				       .done_bytes = 1ULL << 30,
				       .total_bytes = 4ULL << 30,
				       .bytes_per_s = 512.0 * (1 << 20),
				       .columns = 70 };
	cli_progress_line(&at, line);
	cr_expect_str_eq(line,
			 "convert [#######                      ]  25.0 %, 512 MiB/s, 0:07 left");
	at.columns = 40;
	cli_progress_line(&at, line);
	cr_expect_str_eq(line, "convert  25.0 %, 512 MiB/s, 0:07 left");
	at.bytes_per_s = 100000.0;
	cli_progress_line(&at, line);
	cr_expect_str_eq(line, "convert  25.0 %, 97 KiB/s, 8:56:53 left");
	at.bytes_per_s = 1.0;
	cli_progress_line(&at, line);
	cr_expect_str_eq(line, "convert  25.0 %, 0 KiB/s, days left");
	at.done_bytes = at.total_bytes;
	cli_progress_line(&at, line);
	cr_expect_str_eq(line, "convert [############] 100.0 %, 0 KiB/s");
	at.total_bytes = 0;
	at.done_bytes = 0;
	cli_progress_line(&at, line);
	cr_expect_str_eq(line, "convert [############] 100.0 %, 0 KiB/s");
}

Test(cli, foreign_images)
{
	uint8_t bytes[CLI_FOREIGN_LOOK_BYTES] = { 0 };
	struct cli_qcow2_outside outside;

	cr_expect_eq(cli_foreign_find(bytes, sizeof(bytes)), CLI_FOREIGN_NONE);
	memcpy(bytes, "QFI\xfb\0\0\0\3", 8);
	cr_expect_eq(cli_foreign_find(bytes, sizeof(bytes)), CLI_FOREIGN_QCOW2);
	cr_expect_eq(cli_foreign_find(bytes, 3), CLI_FOREIGN_NONE);
	cr_expect_not(cli_qcow2_outside(bytes, 71, &outside));
	cr_expect_not(cli_qcow2_outside(bytes, 103, &outside));
	cr_assert(cli_qcow2_outside(bytes, sizeof(bytes), &outside));
	cr_expect_not(outside.backing || outside.data_file);
	bytes[15] = 104;
	bytes[79] = 4;
	cr_assert(cli_qcow2_outside(bytes, sizeof(bytes), &outside));
	cr_expect(outside.backing && outside.data_file);
	memcpy(bytes, "KDMV", 4);
	cr_expect_str_eq(cli_foreign_name(cli_foreign_find(bytes, sizeof(bytes))), "vmdk");
	memset(bytes, 0, sizeof(bytes));
	memcpy(bytes + 64, "\x7f\x10\xda\xbe", 4);
	cr_expect_str_eq(cli_foreign_name(cli_foreign_find(bytes, sizeof(bytes))), "vdi");
}
