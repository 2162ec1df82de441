/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two machines of the switchover, each for itself: all short sequences of events, and the table
 * in docs/migrate/switchover.md, which is theirs.
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/mig_switch.h"
#include "tests/support/depth.h"

#define EPOCH      7u
#define LENGTH     (depth_stride() == 1 ? 5u : 4u)
#define EVENTS_MAX 64u
#define TEXT_BYTES 65536u

static struct mig_event events[EVENTS_MAX];
static uint32_t event_count;

static void add(struct mig_event event)
{
	cr_assert_lt(event_count, EVENTS_MAX);
	events[event_count++] = event;
}

/* Every kind, every message, and the register as it was, moved on and far off, for each owner. */
static void make_events(void)
{
	for (int kind = MIG_EV_INVALID + 1; kind < MIG_EVENTS; kind++)
		if (kind != MIG_EV_MESSAGE && kind != MIG_EV_ARBITER)
			add((struct mig_event){ .kind = (enum mig_event_kind)kind });
	for (int message = MIG_MSG_INVALID + 1; message < MIG_MSGS; message++)
		add((struct mig_event){ .kind = MIG_EV_MESSAGE,
					.message = (enum mig_message)message });
	for (uint64_t epoch = EPOCH; epoch <= EPOCH + 2; epoch++)
		for (int owner = MIG_SIDE_INVALID + 1; owner < MIG_SIDES; owner++)
			if (epoch > EPOCH || owner == MIG_SOURCE)
				add((struct mig_event){ .kind = MIG_EV_ARBITER,
							.epoch = epoch,
							.owner = (enum mig_side)owner });
}

TestSuite(mig_switch, .init = make_events);

static bool does(const struct mig_actions *actions, enum mig_action_kind kind)
{
	for (uint32_t i = 0; i < actions->count; i++)
		if (actions->list[i].kind == kind)
			return true;
	return false;
}

/* --- all short sequences --- */

static uint64_t source_steps;

static void source_from(struct mig_source source, bool asked, uint32_t depth)
{
	for (uint32_t i = 0; i < event_count; i++) {
		const struct mig_event *event = &events[i];
		struct mig_actions actions;
		struct mig_source next = mig_source_step(source, event, &actions);
		bool named = event->kind == MIG_EV_ARBITER && event->epoch > EPOCH &&
			     event->owner == MIG_SOURCE;

		source_steps++;
		cr_assert(!asked || !does(&actions, MIG_DO_RUN) || named ||
				  source.state == MIG_SRC_RETAKING,
			  "runs after %s in %s", mig_event_name(event),
			  mig_source_state_name(source.state));
		cr_assert(!does(&actions, MIG_DO_RELEASE) || asked);
		cr_assert(source.state != MIG_SRC_SERVING || !does(&actions, MIG_DO_RUN),
			  "runs what has gone on elsewhere");
		cr_assert(!does(&actions, MIG_DO_ASK) || asked ||
			  source.state == MIG_SRC_PROMISING);
		if (mig_source_is_over(&source))
			cr_assert_eq(next.state, source.state, "an end is an end");
		if (depth + 1 < LENGTH)
			source_from(next, asked || does(&actions, MIG_DO_ASK), depth + 1);
	}
}

Test(mig_switch, sequences_of_the_source)
{
	struct mig_source source = mig_source_begin(EPOCH);

	source_from(source, false, 0);
	source.state = MIG_SRC_PROMISING;
	source_from(source, false, 0);
	source.state = MIG_SRC_ASKING;
	source_from(source, true, 0);
	source.state = MIG_SRC_COMMITTED;
	source_from(source, true, 0);
	source.post = true;
	source_from(source, true, 0);
	source.state = MIG_SRC_SERVING;
	source_from(source, true, 0);
	cr_log_info("%" PRIu64 " steps", source_steps);
}

static void destination_from(struct mig_destination destination, bool ready, uint32_t depth)
{
	for (uint32_t i = 0; i < event_count; i++) {
		const struct mig_event *event = &events[i];
		struct mig_actions actions;
		struct mig_destination next = mig_destination_step(destination, event, &actions);
		bool named = (event->kind == MIG_EV_ARBITER && event->epoch == EPOCH + 1 &&
			      event->owner == MIG_DESTINATION) ||
			     (event->kind == MIG_EV_MESSAGE && event->message == MIG_MSG_COMMIT);
		bool told = (event->kind == MIG_EV_ARBITER && event->epoch > EPOCH) ||
			    (event->kind == MIG_EV_MESSAGE && event->message == MIG_MSG_CANCEL);

		cr_assert(!does(&actions, MIG_DO_RUN) || (ready && named), "runs after %s in %s",
			  mig_event_name(event), mig_destination_state_name(destination.state));
		cr_assert(!ready || !does(&actions, MIG_DO_RELEASE) || told,
			  "leaves after %s in %s", mig_event_name(event),
			  mig_destination_state_name(destination.state));
		if (mig_destination_is_over(&destination))
			cr_assert_eq(next.state, destination.state, "an end is an end");
		if (depth + 1 < LENGTH)
			destination_from(next, ready || next.state == MIG_DST_READY, depth + 1);
	}
}

Test(mig_switch, sequences_of_the_destination)
{
	struct mig_destination destination = mig_destination_begin(EPOCH);

	destination_from(destination, false, 0);
	destination.state = MIG_DST_READY;
	destination_from(destination, true, 0);
	destination.state = MIG_DST_HANDING_BACK;
	destination.broken = true;
	destination_from(destination, true, 0);
	destination.broken = false;
	destination.state = MIG_DST_FILLING;
	destination.post = true;
	destination_from(destination, true, 0);
}

/* --- the table --- */

static const char *owner_name(enum mig_side owner)
{
	return owner == MIG_SOURCE ? "source" : owner == MIG_DESTINATION ? "destination" : "other";
}

static void print_event(FILE *out, const struct mig_event *event)
{
	char text[64];

	if (event->kind == MIG_EV_ARBITER && event->epoch > EPOCH)
		(void)snprintf(text, sizeof(text), "(e+%" PRIu64 ", %s)", event->epoch - EPOCH,
			       owner_name(event->owner));
	else if (event->kind == MIG_EV_ARBITER)
		(void)snprintf(text, sizeof(text), "(e, %s)", owner_name(event->owner));
	else if (event->kind == MIG_EV_MESSAGE)
		(void)snprintf(text, sizeof(text), "message %s", mig_event_name(event));
	else
		(void)snprintf(text, sizeof(text), "%s", mig_event_name(event));
	(void)fprintf(out, "%-22s", text);
}

static void print_epoch(FILE *out, uint64_t epoch)
{
	if (epoch == EPOCH)
		(void)fprintf(out, "e");
	else
		(void)fprintf(out, "e+%" PRIu64, epoch - EPOCH);
}

static void print_action(FILE *out, const struct mig_action *action)
{
	static const char *const names[MIG_DOS] = {
		[MIG_DO_PAUSE] = "pause",     [MIG_DO_SEND_REST] = "send-rest",
		[MIG_DO_PROMISE] = "promise", [MIG_DO_CHECK] = "check",
		[MIG_DO_SEND] = "send ",      [MIG_DO_ASK] = "ask ",
		[MIG_DO_READ] = "read",       [MIG_DO_RUN] = "run ",
		[MIG_DO_RELEASE] = "release", [MIG_DO_RETRY] = "retry",
		[MIG_DO_SERVE] = "serve",
	};

	(void)fprintf(out, " %s", names[action->kind]);
	if (action->kind == MIG_DO_SEND)
		(void)fprintf(out, "%s", mig_message_name(action->message));
	else if (action->kind == MIG_DO_RUN)
		print_epoch(out, action->epoch);
	if (action->kind != MIG_DO_ASK)
		return;
	print_epoch(out, action->epoch);
	(void)fprintf(out, "->%s", owner_name(action->owner));
}

static void print_line(FILE *out, const char *from, const struct mig_event *event, const char *to,
		       const struct mig_actions *actions)
{
	if (strcmp(from, to) == 0 && actions->count == 0)
		return;
	(void)fprintf(out, "%-13s ", from);
	print_event(out, event);
	(void)fprintf(out, " %-13s", strcmp(from, to) == 0 ? "" : to);
	for (uint32_t i = 0; i < actions->count; i++)
		print_action(out, &actions->list[i]);
	(void)fprintf(out, "\n");
}

/* @variant: 0; 1 by post-copy; 2 so, and nothing is heard of the destination. */
static void print_source(FILE *out, enum mig_source_state state, const struct mig_event *event,
			 uint32_t variant)
{
	struct mig_source from = mig_source_begin(EPOCH);
	struct mig_actions actions;
	struct mig_source to;

	from.state = state;
	from.post = variant > 0;
	from.lost = variant > 1;
	to = mig_source_step(from, event, &actions);
	print_line(out, mig_source_state_name(from.state), event, mig_source_state_name(to.state),
		   &actions);
}

static void print_destination(FILE *out, enum mig_destination_state state,
			      const struct mig_event *event, uint32_t variant)
{
	struct mig_destination from = mig_destination_begin(EPOCH);
	struct mig_actions actions;
	struct mig_destination to;

	from.state = state;
	from.post = variant > 0;
	to = mig_destination_step(from, event, &actions);
	print_line(out, mig_destination_state_name(from.state), event,
		   mig_destination_state_name(to.state), &actions);
}

static char *line_of(bool source, int state, const struct mig_event *event, uint32_t variant)
{
	char *text = NULL;
	size_t size_bytes = 0;
	FILE *out = open_memstream(&text, &size_bytes);

	cr_assert_not_null(out);
	if (source)
		print_source(out, (enum mig_source_state)state, event, variant);
	else
		print_destination(out, (enum mig_destination_state)state, event, variant);
	cr_assert_eq(fclose(out), 0);
	return text;
}

/* Of one side; of a variant but the first, what is not as in the one before. */
static void print_side(FILE *out, bool source, uint32_t variant)
{
	int count = source ? MIG_SRC_STATES : MIG_DST_STATES;

	for (int state = 1; state < count; state++)
		for (uint32_t i = 0; i < event_count; i++) {
			bool is_post = source ? state == MIG_SRC_SERVING : state == MIG_DST_FILLING;
			char *text = line_of(source, state, &events[i], variant);
			char *before = variant > 0 ? line_of(source, state, &events[i], variant - 1)
						   : NULL;

			if (variant == 0 ? !is_post
					 : strcmp(text, before) != 0 || (is_post && variant == 1))
				(void)fprintf(out, "%s", text);
			free(text);
			free(before);
		}
}

static char *render(void)
{
	static const struct {
		bool source;
		uint32_t variant;
	} parts[] = { { true, 0 }, { false, 0 }, { true, 1 }, { true, 2 }, { false, 1 } };
	char *text = NULL;
	size_t size_bytes = 0;
	FILE *out = open_memstream(&text, &size_bytes);

	cr_assert_not_null(out);
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		if (i > 0)
			(void)fprintf(out, "\n");
		print_side(out, parts[i].source, parts[i].variant);
	}
	cr_assert_eq(fclose(out), 0);
	for (char *at = text; (at = strstr(at, " \n")) != NULL;) { /* no blanks at ends */
		memmove(at, at + 1, strlen(at));
		if (at > text)
			at--;
	}
	return text;
}

/* What the machines do is what the page says. */
Test(mig_switch, the_page_has_their_table)
{
	static char page[TEXT_BYTES];
	char *text = render();
	FILE *in = fopen(TEST_SOURCE_DIR "/docs/migrate/switchover.md", "r");
	size_t size = 0;

	cr_assert_not_null(in);
	size = fread(page, 1, sizeof(page) - 1, in);
	page[size] = '\0';
	(void)fclose(in);
	if (strstr(page, text) == NULL) {
		(void)fprintf(stderr, "%s", text);
		cr_assert_fail("docs/migrate/switchover.md: expected the table above");
	}
	free(text);
}
