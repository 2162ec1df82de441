/* SPDX-License-Identifier: Apache-2.0 */
/* What states, events and messages are called in logs, reports and tests. */
#include "migrate/mig_switch.h"

#include <stddef.h>

static const char *const source_states[MIG_SRC_STATES] = {
	[MIG_SRC_LINKING] = "linking",     [MIG_SRC_COPYING] = "copying",
	[MIG_SRC_PAUSING] = "pausing",     [MIG_SRC_SENDING] = "sending",
	[MIG_SRC_PROMISING] = "promising", [MIG_SRC_ASKING] = "asking",
	[MIG_SRC_COMMITTED] = "committed", [MIG_SRC_RETAKING] = "retaking",
	[MIG_SRC_STAYS] = "stays",         [MIG_SRC_MOVED] = "moved",
	[MIG_SRC_STALE] = "stale",         [MIG_SRC_SERVING] = "serving",
};

static const char *const destination_states[MIG_DST_STATES] = {
	[MIG_DST_RECEIVING] = "receiving",   [MIG_DST_CHECKING] = "checking",
	[MIG_DST_READY] = "ready",           [MIG_DST_WITHDRAWING] = "withdrawing",
	[MIG_DST_ACTIVATING] = "activating", [MIG_DST_HANDING_BACK] = "handing-back",
	[MIG_DST_RUNNING] = "running",       [MIG_DST_GONE] = "gone",
	[MIG_DST_FILLING] = "filling",
};

static const char *const messages[MIG_MSGS] = {
	[MIG_MSG_SEALED] = "sealed",           [MIG_MSG_CANCEL] = "cancel",
	[MIG_MSG_COMMIT] = "commit",           [MIG_MSG_READY] = "ready",
	[MIG_MSG_FAILED] = "failed",           [MIG_MSG_RUNNING] = "running",
	[MIG_MSG_HANDED_BACK] = "handed-back", [MIG_MSG_SEALED_POST] = "sealed-post",
	[MIG_MSG_COMPLETE] = "complete",
};

static const char *const events[MIG_EVENTS] = {
	[MIG_EV_LINKED] = "linked",         [MIG_EV_SWITCH] = "switch",
	[MIG_EV_PAUSED] = "paused",         [MIG_EV_PROMISED] = "promised",
	[MIG_EV_CHECKED] = "checked",       [MIG_EV_RUNS] = "runs",
	[MIG_EV_RUN_FAILED] = "run-failed", [MIG_EV_MESSAGE] = "message",
	[MIG_EV_LINK_LOST] = "link-lost",   [MIG_EV_LINK_BACK] = "link-back",
	[MIG_EV_ARBITER] = "arbiter",       [MIG_EV_ARBITER_UNKNOWN] = "arbiter-unknown",
	[MIG_EV_RETRY] = "retry",           [MIG_EV_CANCEL] = "cancel",
	[MIG_EV_GIVE_UP] = "give-up",       [MIG_EV_FAULT] = "fault",
	[MIG_EV_FILLED] = "filled",         [MIG_EV_SWITCH_POST] = "switch-post",
};

static const char *name_of(const char *const *names, int count, int value)
{
	const char *name = value > 0 && value < count ? names[value] : NULL;

	return name != NULL ? name : "?";
}

const char *mig_source_state_name(enum mig_source_state state)
{
	return name_of(source_states, MIG_SRC_STATES, (int)state);
}

const char *mig_destination_state_name(enum mig_destination_state state)
{
	return name_of(destination_states, MIG_DST_STATES, (int)state);
}

const char *mig_message_name(enum mig_message message)
{
	return name_of(messages, MIG_MSGS, (int)message);
}

const char *mig_event_name(const struct mig_event *event)
{
	if (event->kind == MIG_EV_MESSAGE)
		return mig_message_name(event->message);
	return name_of(events, MIG_EVENTS, (int)event->kind);
}
