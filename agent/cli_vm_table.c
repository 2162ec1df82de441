/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of "godwit vm": verbs, options and their texts.
 */
#include "agent/cli_vm_priv.h"

#define FIELD(member) .offset = offsetof(struct cli_vm_args, member)
#define COUNT(array)  (sizeof(array) / sizeof((array)[0]))

static const struct cli_word owner_words[] = {
	{ "here", CLI_VM_HERE },
	{ "there", CLI_VM_THERE },
	{ NULL, 0 },
};

static const struct cli_row resolve_rows[] = {
	{ .name = "state-dir",
	  .type = CLI_TEXT,
	  FIELD(state_dir),
	  .value = "DIR",
	  .expected = "the path of a directory",
	  .help = "State directory of the worker, which has the records." },
	{ .name = "name",
	  .type = CLI_TEXT,
	  FIELD(name),
	  .value = "NAME",
	  .expected = "the name of a virtual machine",
	  .help = "The virtual machine. Without it all records of the directory are shown." },
	{ .name = "owner",
	  .type = CLI_CHOICE,
	  FIELD(owner),
	  .value = "SIDE",
	  .words = owner_words,
	  .help = "Decide: the machine goes on here, on this side, or there, on the other." },
	{ .name = "other-is-dead",
	  .type = CLI_FLAG,
	  FIELD(other_is_dead),
	  .help = "Your word, needed to take a machine here that is in doubt. At the "
		  "destination: the source's worker is dead, or its own 'godwit vm resolve' "
		  "shows that it waits in doubt. At the source: the destination's worker is "
		  "dead and will not be started again from what it has, or its own 'godwit vm "
		  "resolve' shows no record, or that it gave the machine back. A word that is "
		  "not true can make two of the machine." },
	{ .name = "dry-run",
	  .letter = 'n',
	  .type = CLI_FLAG,
	  FIELD(dry_run),
	  .help = "Check, say what would be decided, change nothing." },
	{ .name = "json", .type = CLI_FLAG, FIELD(json), .help = "Print JSON." },
};
static const char *const resolve_examples[] = {
	"godwit vm resolve --state-dir /var/lib/godwit/web1",
	"godwit vm resolve --state-dir /var/lib/godwit/web1 --name web1 --owner there",
	"godwit vm resolve --state-dir /var/lib/godwit/web1 --name web1 --owner here "
	"--other-is-dead",
	NULL,
};

static const struct cli_row report_rows[] = {
	{ .name = "control",
	  .type = CLI_TEXT,
	  FIELD(control),
	  .value = "SOCKET",
	  .expected = "the path of a worker's control socket",
	  .help = "Control socket of the worker that the machine leaves, or was to leave." },
	{ .name = "from",
	  .type = CLI_TEXT,
	  FIELD(from),
	  .value = "FILE.json",
	  .expected = "the path of a file",
	  .help = "What --json printed, instead of a worker." },
	{ .name = "report",
	  .type = CLI_TEXT,
	  FIELD(report),
	  .value = "FILE.html",
	  .expected = "the path of a file",
	  .help = "Write the page there: one file that needs nothing else. It is there as a whole "
		  "or not at all. An older one is replaced; what is no regular file is refused." },
	{ .name = "wait",
	  .letter = 'w',
	  .type = CLI_FLAG,
	  FIELD(wait),
	  .help = "Wait until the migration that is under way, or the first one that begins, is "
		  "over. Needed where it is to move: the worker that it leaves ends then." },
	{ .name = "json", .type = CLI_FLAG, FIELD(json), .help = "Print what was told as JSON." },
};
static const char *const report_examples[] = {
	"godwit vm report --control /run/godwit/web1.sock --wait --report web1.html",
	"godwit vm report --control /run/godwit/web1.sock --json > web1.json",
	"godwit vm report --from web1.json --report web1.html",
	NULL,
};

const struct cli_verb cli_vm_verbs[CLI_VM_VERBS] = {
	{ .name = "resolve",
	  .summary = "Show or decide who runs a machine whose migration was cut off in doubt.",
	  .text = "Where source and destination of a migration are cut off from each other at the "
		  "instant that decides, both stay paused, and each has a record that names the "
		  "other. When they hear of each other again they go on by themselves. When they "
		  "will not, an operator decides with this command. Without --owner it shows the "
		  "records and what can be decided: exit code 3 when a machine is in doubt. With "
		  "--owner it decides, or says in one line why that cannot be and changes nothing. "
		  "The worker that waits learns of it by itself.",
	  .rows = resolve_rows,
	  .row_count = COUNT(resolve_rows),
	  .examples = resolve_examples,
	  .run = cli_vm_resolve },
	{ .name = "report",
	  .summary = "Write a page about a migration: what it did over time, and its figures.",
	  .text = "Asks the worker that a virtual machine leaves for the migration that is under "
		  "way there, or for the last one if the machine stayed, and writes a page for a "
		  "browser: dirty rate, send rate, what remained, throttling, faults served and "
		  "the blackout with its phases over time, and tables of the figures. The page "
		  "has no script and loads nothing.",
	  .rows = report_rows,
	  .row_count = COUNT(report_rows),
	  .examples = report_examples,
	  .run = cli_vm_report },
};
