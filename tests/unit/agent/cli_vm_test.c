/* SPDX-License-Identifier: Apache-2.0 */
/* godwit vm resolve: its command line, what it shows, what it decides, and how it ends. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/cli_vm_priv.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "migrate/mig_records.h"

static char folder[] = "/tmp/godwit-cli-vm-XXXXXX";
static int folder_fd = -1;
static struct mig_records *records;
static struct base_error err;
static char printed[8192]; /* standard output, then standard error */

static void begin(void)
{
	cr_assert_not_null(mkdtemp(folder));
	folder_fd = open(folder, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	cr_assert_eq(mig_records_new(folder_fd, NULL, &records, &err), 0);
}

static void end(void)
{
	static const char *const names[] = { "web.register", "web.promise", "db.promise",
					     "db.register" };

	mig_records_free(records);
	for (size_t i = 0; i < 4; i++)
		(void)unlinkat(folder_fd, names[i], 0);
	(void)close(folder_fd);
	(void)rmdir(folder);
}

static struct mig_keep keep_of(const char *name)
{
	static const uint8_t id[MIG_ID_BYTES] = { 0xab, 1 };
	struct mig_keep keep;

	cr_assert_eq(mig_keep_init(&keep, records, name, "10.0.0.2:7011", id, &err), 0);
	return keep;
}

static void all_here(const char *name)
{
	struct mig_keep keep = keep_of(name);

	cr_assert_eq(mig_register_begin(&keep, 7, &err), 0, "%s", err.text);
}

static void promised(const char *name)
{
	struct mig_keep keep = keep_of(name);

	cr_assert_eq(mig_promise_make(&keep, 7, &err), 0, "%s", err.text);
}

/* "godwit vm resolve @words": its exit code; what it prints is in @printed. */
static int run(const char *words)
{
	char text[512];
	char *argv[16] = { (char[]){ "godwit" }, (char[]){ "vm" }, (char[]){ "resolve" } };
	char *save = NULL;
	int out = memfd_create("out", MFD_CLOEXEC);
	int old_out;
	int old_err;
	int argc = 3;
	int code;
	ssize_t size;

	(void)snprintf(text, sizeof(text), "%s", words);
	for (char *word = strtok_r(text, " ", &save); word != NULL && argc < 16;
	     word = strtok_r(NULL, " ", &save))
		argv[argc++] = strcmp(word, "DIR") == 0 ? folder : word;
	(void)fflush(stdout);
	(void)fflush(stderr);
	old_out = dup(STDOUT_FILENO);
	old_err = dup(STDERR_FILENO);
	cr_assert(dup2(out, STDOUT_FILENO) >= 0 && dup2(out, STDERR_FILENO) >= 0);
	code = cli_main(cli_nouns, cli_noun_count, argc, argv);
	(void)fflush(stdout);
	(void)fflush(stderr);
	(void)dup2(old_out, STDOUT_FILENO);
	(void)dup2(old_err, STDERR_FILENO);
	(void)close(old_out);
	(void)close(old_err);
	size = pread(out, printed, sizeof(printed) - 1, 0);
	cr_assert_geq(size, 0);
	printed[size] = '\0';
	(void)close(out);
	return code;
}

static void expect(const char *words, int code, const char *text)
{
	int got = run(words);

	cr_assert_eq(got, code, "%s: %d: %s", words, got, printed);
	cr_assert_not_null(strstr(printed, text), "%s: '%s', not '%s'", words, printed, text);
}

static struct mig_register on_disk(enum mig_record_kind kind, const char *name)
{
	struct mig_record record;

	cr_assert_eq(mig_records_load(records, kind, name, &record, &err), 0, "%s", err.text);
	return record.now;
}

Test(cli_vm, command_lines_that_are_wrong, .init = begin, .fini = end)
{
	all_here("web");
	expect("", 2, "option '--state-dir': not given: expected the path of a directory");
	expect("--state-dir", 2, "state-dir");
	expect("--state-dir DIR --owner", 2, "owner");
	expect("--state-dir DIR --name web --owner elsewhere", 2, "expected here or there");
	expect("--state-dir DIR --owner here", 2, "without '--name'");
	expect("--state-dir DIR --name web --other-is-dead", 2, "without '--owner'");
	expect("--state-dir DIR --name web --dry-run", 2, "without '--owner'");
	expect("--state-dir DIR --name ../web", 2, "name '../web': expected 1 to 63");
	expect("--state-dir DIR web", 2, "expected no more operands");
	expect("--state-dir DIR --force", 2, "--force");
	expect("--state-dir /none/such", 1, "'/none/such': No such file or directory");
	cr_assert_eq(on_disk(MIG_RECORD_REGISTER, "web").epoch, 7);
}

Test(cli_vm, nothing_is_there, .init = begin, .fini = end)
{
	expect("--state-dir DIR", 0, "");
	cr_assert_str_eq(printed, "");
	expect("--state-dir DIR --json", 0, "[]\n");
	expect("--state-dir DIR --name web", 0,
	       "web: no record of a migration; nothing is in doubt\n");
	expect("--state-dir DIR --name web --json", 0, "[]\n");
	expect("--state-dir DIR --name web --owner there", 1,
	       "godwit: vm resolve: 'web': there is no record of a migration\n");
}

Test(cli_vm, a_destination_in_doubt, .init = begin, .fini = end)
{
	all_here("web");
	expect("--state-dir DIR --name web", 3,
	       "web: in doubt: all of it is here; 10.0.0.2:7011 runs it at epoch 7, or waits to "
	       "give it to this side\n"
	       "  destination of a migration from epoch 7, register (7, source), all here, "
	       "written ");
	cr_assert_not_null(strstr(printed, "\n  --owner there: it goes on at 10.0.0.2:7011"));
	cr_assert_not_null(strstr(printed, "\n  --owner here --other-is-dead: it goes on here"));
	expect("--state-dir DIR --name web --owner here", 1,
	       "expected --other-is-dead, the word that its worker is dead, or waits in doubt\n");
	cr_assert_eq(on_disk(MIG_RECORD_REGISTER, "web").epoch, 7);
	expect("--state-dir DIR --name web --owner here --other-is-dead -n", 0,
	       "would be decided:\nweb: decided: it is this side's, at epoch 8; nothing is "
	       "activated\n");
	cr_assert_eq(on_disk(MIG_RECORD_REGISTER, "web").epoch, 7);
	expect("--state-dir DIR --name web --owner here --other-is-dead", 0,
	       "web: decided: it is this side's, at epoch 8; nothing is activated\n");
	cr_assert_eq(on_disk(MIG_RECORD_REGISTER, "web").epoch, 8);
	cr_assert_eq(on_disk(MIG_RECORD_REGISTER, "web").owner, MIG_DESTINATION);
	expect("--state-dir DIR --name web --owner here", 0, "it is so already:\nweb: decided");
	expect("--state-dir DIR --name web", 0, "\n  --owner there: it is handed back\n");
	expect("--state-dir DIR --name web --owner there", 0,
	       "web: decided: it was given back to 10.0.0.2:7011, at epoch 9\n");
	expect("--state-dir DIR --name web --owner here --other-is-dead", 1,
	       "it was given back: expected it to go on at the other side\n");
	expect("--state-dir DIR --name web", 0, "given back");
}

Test(cli_vm, a_source_in_doubt, .init = begin, .fini = end)
{
	promised("web");
	expect("--state-dir DIR --name web", 3,
	       "web: in doubt: 10.0.0.2:7011 may have been given it at epoch 8; here it waits "
	       "for the answer\n");
	expect("--state-dir DIR --name web --owner here", 1, "expected --other-is-dead");
	expect("--state-dir DIR --name web --owner here --other-is-dead", 0,
	       "web: decided by an operator: it is this side's, at epoch 9 or later; where its "
	       "worker is gone, start it here\n");
	cr_assert_eq(on_disk(MIG_RECORD_PROMISE, "web").epoch, 9);
	expect("--state-dir DIR --name web --owner there", 1, "expected it to stay so");
	expect("--state-dir DIR --name web", 0, "decided by an operator");
}

Test(cli_vm, a_source_that_gives_up, .init = begin, .fini = end)
{
	promised("web");
	expect("--state-dir DIR --name web --owner there", 0,
	       "web: decided by an operator: it is the one of 10.0.0.2:7011, at epoch 8 or "
	       "later\n");
	expect("--state-dir DIR --name web --owner here --other-is-dead", 1, "to stay so");
}

Test(cli_vm, an_activation_that_had_begun, .init = begin, .fini = end)
{
	struct mig_keep keep = keep_of("web");
	struct mig_register now;

	all_here("web");
	cr_assert_eq(mig_register_ask(&keep, 7, MIG_DESTINATION, &now, &err), 0);
	cr_assert_eq(mig_register_activate(&keep, 8, &err), 0);
	expect("--state-dir DIR --name web", 0, "at epoch 8; its activation had begun\n");
	expect("--state-dir DIR --name web --owner there", 1,
	       "'web', register (8, destination), activating: its activation had begun here: "
	       "expected it to go on here\n");
	cr_assert_eq(mig_register_runs(&keep, &err), 0);
	expect("--state-dir DIR --name web", 0, "at epoch 8; it ran here\n");
}

Test(cli_vm, all_of_a_directory, .init = begin, .fini = end)
{
	all_here("web");
	promised("db");
	expect("--state-dir DIR", 3, "db: in doubt: ");
	cr_assert_not_null(strstr(printed, "\nweb: in doubt: "));
	expect("--state-dir DIR --name db --owner there", 0, "db: decided");
	expect("--state-dir DIR --name web --owner there", 0, "web: decided");
	expect("--state-dir DIR", 0, "db: decided");
	cr_assert_not_null(strstr(printed, "\nweb: decided: "));
}

/* What is damaged is said, is no doubt and no "nothing", and hides no other. */
Test(cli_vm, a_damaged_record, .init = begin, .fini = end)
{
	int fd;

	all_here("web");
	fd = openat(folder_fd, "db.promise", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	cr_assert_eq(base_write_all(fd, "x", 1), 0);
	(void)close(fd);
	expect("--state-dir DIR", 1, "godwit: vm resolve: 'db.promise': 1 bytes: expected");
	cr_assert_not_null(strstr(printed, "web: in doubt: "));
	expect("--state-dir DIR --json", 1, "'db.promise'");
	expect("--state-dir DIR --name db", 1, "'db.promise'");
	expect("--state-dir DIR --name db --owner there", 1, "'db.promise'");
	expect("--state-dir DIR --name web", 3, "web: in doubt");
}

Test(cli_vm, json, .init = begin, .fini = end)
{
	json_t *list;
	json_t *one;

	all_here("web");
	promised("db");
	cr_assert_eq(run("--state-dir DIR --json"), 3);
	list = json_loads(printed, 0, NULL);
	cr_assert_eq(json_array_size(list), 2, "%s", printed);
	one = json_array_get(list, 1);
	cr_assert_str_eq(json_string_value(json_object_get(one, "name")), "web");
	cr_assert_str_eq(json_string_value(json_object_get(one, "side")), "destination");
	cr_assert_str_eq(json_string_value(json_object_get(one, "state")), "all here");
	cr_assert(json_is_true(json_object_get(one, "in-doubt")));
	cr_assert(json_is_null(json_object_get(one, "owner")));
	cr_assert_eq(json_integer_value(json_object_get(one, "epoch")), 7);
	cr_assert_eq(json_integer_value(json_object_get(one, "from-epoch")), 7);
	cr_assert_str_eq(json_string_value(json_object_get(one, "other-side")), "10.0.0.2:7011");
	cr_assert_str_eq(json_string_value(json_object_get(one, "migration")),
			 "ab010000000000000000000000000000");
	json_decref(list);
	cr_assert_eq(run("--state-dir DIR --name db --owner here --other-is-dead --json"), 0);
	list = json_loads(printed, 0, NULL);
	one = json_array_get(list, 0);
	cr_assert_str_eq(json_string_value(json_object_get(one, "side")), "source");
	cr_assert_str_eq(json_string_value(json_object_get(one, "owner")), "here");
	cr_assert(json_is_false(json_object_get(one, "in-doubt")));
	cr_assert_eq(json_integer_value(json_object_get(one, "epoch")), 9);
	json_decref(list);
}

Test(cli_vm, help_names_every_option)
{
	BASE_FREE char *text = NULL;
	size_t text_bytes = 0;
	FILE *out = open_memstream(&text, &text_bytes);
	const struct cli_verb *verb = &cli_vm_verbs[0];

	cli_help(out, cli_nouns, cli_noun_count, &cli_nouns[1], verb);
	cr_assert_eq(fclose(out), 0);
	for (size_t i = 0; i < verb->row_count; i++)
		cr_expect_not_null(strstr(text, verb->rows[i].name), "%s", verb->rows[i].name);
	cr_expect_not_null(strstr(text, "usage: godwit vm resolve [OPTION]..."));
	cr_expect_null(strstr(text, "operands:"));
}
