/* SPDX-License-Identifier: Apache-2.0 */
/*
 * godwit vm resolve: what the records say in words, and an operator's decision.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/cli_vm_priv.h"
#include "agent/vm_inventory.h"
#include "base/cleanup.h"
#include "migrate/mig_resolve.h"

#define WORDS_BYTES 512
#define TIME_BYTES  32
#define ID_BYTES    (2 * MIG_ID_BYTES + 1)

BASE_DEFINE_FREEP(struct mig_records, mig_records_free);

/* A directory's records, and what was found there. */
struct found {
	json_t *list; /* NULL: text */
	const struct cli_vm_args *args;
	bool in_doubt;
	int fd; /* of the directory; borrowed */
};

static bool is_here(const struct mig_record *record)
{
	return (record->kind == MIG_RECORD_REGISTER) == (record->now.owner == MIG_DESTINATION);
}

static bool can_hand_back(const struct mig_record *record)
{
	return record->state == MIG_HELD_ALL_HERE && record->now.owner == MIG_DESTINATION;
}

static void show_time(uint64_t seconds, char ret_text[TIME_BYTES])
{
	time_t at = (time_t)seconds;
	struct tm utc;

	if (seconds > INT64_MAX / 2 || gmtime_r(&at, &utc) == NULL ||
	    strftime(ret_text, TIME_BYTES, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0)
		(void)snprintf(ret_text, TIME_BYTES, "?");
}

/* One record in words. */
static void explain(const struct mig_record *record, char ret_words[WORDS_BYTES])
{
	const char *peer = record->peer;
	uint64_t epoch = record->now.epoch;

	if (record->state == MIG_HELD_PROMISED)
		(void)snprintf(ret_words, WORDS_BYTES,
			       "in doubt: %s may have been given it at epoch %" PRIu64
			       "; here it waits for the answer",
			       peer, record->from_epoch + 1);
	else if (mig_record_in_doubt(record))
		(void)snprintf(ret_words, WORDS_BYTES,
			       "in doubt: all of it is here; %s runs it at epoch %" PRIu64
			       ", or waits to give it to this side",
			       peer, epoch);
	else if (record->state == MIG_HELD_RESOLVED)
		(void)snprintf(ret_words, WORDS_BYTES,
			       "decided by an operator: it is %s%s, at epoch %" PRIu64
			       " or later%s",
			       is_here(record) ? "this side's" : "the one of ",
			       is_here(record) ? "" : peer,
			       is_here(record) ? epoch : record->from_epoch + 1,
			       is_here(record) ? "; where its worker is gone, start it here" : "");
	else if (record->state == MIG_HELD_COMING)
		(void)snprintf(ret_words, WORDS_BYTES,
			       "decided: it is the one of %s, and was coming from there; not all "
			       "of it is here",
			       peer);
	else if (record->state == MIG_HELD_OVER)
		(void)snprintf(ret_words, WORDS_BYTES,
			       is_here(record) ? "decided: it stayed here, from epoch %" PRIu64
						 " on: %s gave it back"
					       : "decided: it has moved, at epoch %" PRIu64
						 ", to %s",
			       epoch, peer);
	else if (is_here(record))
		(void)snprintf(ret_words, WORDS_BYTES,
			       "decided: it is this side's, at epoch %" PRIu64 "; %s", epoch,
			       record->state == MIG_HELD_RUNS         ? "it ran here"
			       : record->state == MIG_HELD_ACTIVATING ? "its activation had begun"
								      : "nothing is activated");
	else
		(void)snprintf(ret_words, WORDS_BYTES,
			       "decided: it was given back to %s, at epoch %" PRIu64 "%s", peer,
			       epoch,
			       record->state == MIG_HELD_LEFT ? "; nothing of it is here" : "");
}

static void print_choices(const struct mig_record *record)
{
	if (can_hand_back(record)) {
		(void)printf("  --owner there: it is handed back\n");
	} else if (record->state == MIG_HELD_PROMISED) {
		(void)printf("  --owner here --other-is-dead: it goes on here, if %s is dead for "
			     "good, or shows that it gave it back\n"
			     "  --owner there: its memory here is given up, if %s shows that it "
			     "runs there\n",
			     record->peer, record->peer);
	} else if (mig_record_in_doubt(record)) {
		(void)printf("  --owner there: it goes on at %s, whatever that knows\n"
			     "  --owner here --other-is-dead: it goes on here, if %s is dead, or "
			     "shows that it waits in doubt\n",
			     record->peer, record->peer);
	}
}

static void print_record(const struct mig_record *record)
{
	char words[WORDS_BYTES];
	char written[TIME_BYTES];

	explain(record, words);
	show_time(record->written_s, written);
	(void)printf("%s: %s\n  %s of a migration from epoch %" PRIu64 ", register (%" PRIu64
		     ", %s), %s, written %s\n",
		     record->name, words,
		     record->kind == MIG_RECORD_REGISTER ? "destination" : "source",
		     record->from_epoch, record->now.epoch,
		     record->now.owner == MIG_SOURCE ? "source" : "destination",
		     mig_record_state_name(record->state), written);
}

/* Set @key unless @value is NULL (no memory). */
static bool put(json_t *object, const char *key, json_t *value)
{
	return json_object_set_new(object, key, value) == 0;
}

static json_t *record_json(const struct mig_record *record)
{
	bool doubt = mig_record_in_doubt(record);
	json_t *object = json_object();
	char words[WORDS_BYTES];
	char written[TIME_BYTES];
	char id[ID_BYTES];

	explain(record, words);
	show_time(record->written_s, written);
	for (size_t i = 0; i < MIG_ID_BYTES; i++)
		(void)snprintf(id + 2 * i, 3, "%02x", record->id[i]);
	if (object != NULL && put(object, "name", json_string(record->name)) &&
	    put(object, "side",
		json_string(record->kind == MIG_RECORD_REGISTER ? "destination" : "source")) &&
	    put(object, "state", json_string(mig_record_state_name(record->state))) &&
	    put(object, "in-doubt", json_boolean(doubt)) &&
	    put(object, "owner",
		doubt ? json_null() : json_string(is_here(record) ? "here" : "there")) &&
	    put(object, "epoch", json_integer((json_int_t)record->now.epoch)) &&
	    put(object, "from-epoch", json_integer((json_int_t)record->from_epoch)) &&
	    put(object, "other-side", json_string(record->peer)) &&
	    put(object, "migration", json_string(id)) &&
	    put(object, "written", json_string(written)) &&
	    put(object, "words", json_string(words)))
		return object;
	json_decref(object);
	return NULL;
}

static int show(struct found *found, const struct mig_record *record, struct base_error *err)
{
	found->in_doubt = found->in_doubt || mig_record_in_doubt(record);
	if (found->list == NULL)
		print_record(record);
	else if (json_array_append_new(found->list, record_json(record)) != 0)
		return base_fail_errno(err, -ENOMEM, "JSON text");
	if (found->list == NULL && found->args->owner == CLI_VM_OWNER_INVALID)
		print_choices(record);
	return 0;
}

/* What a dead worker has left of images goes, where the records say whose they are. */
static void look_at_images(struct mig_records *records, const struct found *found, const char *name)
{
	struct base_error why = { 0 };

	if (found->args->dry_run || vm_inventory_look(found->fd, records, name, &why) == 0)
		return;
	if (found->list == NULL)
		(void)printf("%s: %s\n", name, why.text);
}

/* Each name once; a record that is damaged does not hide the others. */
static int show_all(struct mig_records *records, struct found *found, struct base_error *err)
{
	BASE_FREE struct mig_records_entry *list = NULL;
	struct base_error damage = { 0 };
	struct mig_record record;
	size_t count = 0;
	int code = mig_records_list(records, &list, &count, err);

	for (size_t i = 0; code == 0 && i < count; i++) {
		struct base_error why = { 0 };

		if (i > 0 && strcmp(list[i].name, list[i - 1].name) == 0)
			continue;
		look_at_images(records, found, list[i].name);
		if (mig_resolve_look(records, list[i].name, &record, &why) == 0)
			code = show(found, &record, err);
		else if (why.code != -ENOENT && damage.code == 0) /* it may just have gone */
			damage = why;
	}
	if (code == 0 && damage.code != 0) {
		if (err != NULL)
			*err = damage;
		code = damage.code == -EINVAL ? -EIO : damage.code;
	}
	return code;
}

static int show_one(struct mig_records *records, struct found *found, struct base_error *err)
{
	struct base_error why = { 0 };
	struct mig_record record;
	int code = 0;

	look_at_images(records, found, found->args->name);
	code = mig_resolve_look(records, found->args->name, &record, &why);
	if (code == 0)
		return show(found, &record, err);
	if (code != -ENOENT) {
		if (err != NULL)
			*err = why;
		return code;
	}
	if (found->list == NULL)
		(void)printf("%s: no record of a migration; nothing is in doubt\n",
			     found->args->name);
	return 0;
}

static int decide(struct mig_records *records, struct found *found, struct base_error *err)
{
	const struct cli_vm_args *args = found->args;
	const struct mig_resolve resolve = { .here = args->owner == CLI_VM_HERE,
					     .other_is_dead = args->other_is_dead,
					     .dry_run = args->dry_run };
	struct mig_record after;
	int code = mig_resolve_decide(records, args->name, &resolve, &after, err);

	if (code < 0)
		return code;
	if (found->list == NULL && code == 0)
		(void)printf("it is so already:\n");
	else if (found->list == NULL && args->dry_run)
		(void)printf("would be decided:\n");
	return show(found, &after, err);
}

static int check(const struct cli_vm_args *args, struct base_error *err)
{
	if (args->state_dir == NULL)
		return base_fail(err, -EINVAL,
				 "option '--state-dir': not given: expected the path of a "
				 "directory");
	if (args->owner != CLI_VM_OWNER_INVALID && args->name == NULL)
		return base_fail(err, -EINVAL,
				 "option '--owner': without '--name': expected the name of a "
				 "virtual machine");
	if (args->owner == CLI_VM_OWNER_INVALID && (args->other_is_dead || args->dry_run))
		return base_fail(err, -EINVAL, "option '%s': without '--owner': expected both",
				 args->other_is_dead ? "--other-is-dead" : "--dry-run");
	return 0;
}

static int print_list(json_t *list, struct base_error *err)
{
	if (json_dumpf(list, stdout, JSON_INDENT(2)) != 0)
		return base_fail_errno(err, -ENOMEM, "JSON text");
	(void)putchar('\n');
	return 0;
}

int cli_vm_resolve(const void *arguments, struct base_error *err)
{
	const struct cli_vm_args *args = arguments;
	struct found found = { .args = args };
	BASE_CLEANUP(mig_records_freep) struct mig_records *records = NULL;
	BASE_CLOSE int fd = -1;
	int code = check(args, err);
	int printed = 0;

	if (code < 0)
		return code;
	fd = open(args->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return base_fail_errno(err, errno == EINVAL ? -EIO : -errno, "'%s'",
				       args->state_dir);
	code = mig_records_new(fd, NULL, &records, err);
	if (code < 0)
		return code;
	found.fd = fd;
	found.list = args->json ? json_array() : NULL;
	if (args->json && found.list == NULL)
		return base_fail_errno(err, -ENOMEM, "JSON text");
	if (args->owner != CLI_VM_OWNER_INVALID)
		code = decide(records, &found, err);
	else if (args->name != NULL)
		code = show_one(records, &found, err);
	else
		code = show_all(records, &found, err);
	if (found.list != NULL && (code == 0 || json_array_size(found.list) > 0))
		printed = print_list(found.list, code == 0 ? err : NULL);
	json_decref(found.list);
	if (code < 0 || printed < 0)
		return code < 0 ? code : printed;
	/* A dry run leaves the doubt, and tells what would be: that is done. */
	return found.in_doubt && args->owner == CLI_VM_OWNER_INVALID ? CLI_EXIT_UNKNOWN : 0;
}
