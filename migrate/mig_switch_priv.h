/* SPDX-License-Identifier: Apache-2.0 */
/* Actions, for both machines. */
#ifndef MIGRATE_MIG_SWITCH_PRIV_H
#define MIGRATE_MIG_SWITCH_PRIV_H

#include "base/error.h"
#include "migrate/mig_switch.h"

static inline void mig_do(struct mig_actions *actions, struct mig_action action)
{
	base_assert(actions->count < MIG_ACTIONS_MAX);
	actions->list[actions->count++] = action;
}

static inline void mig_do_plain(struct mig_actions *actions, enum mig_action_kind kind)
{
	mig_do(actions, (struct mig_action){ .kind = kind });
}

static inline void mig_do_send(struct mig_actions *actions, enum mig_message message)
{
	mig_do(actions, (struct mig_action){ .kind = MIG_DO_SEND, .message = message });
}

static inline void mig_do_run(struct mig_actions *actions, uint64_t epoch)
{
	mig_do(actions, (struct mig_action){ .kind = MIG_DO_RUN, .epoch = epoch });
}

static inline void mig_do_ask(struct mig_actions *actions, uint64_t epoch, enum mig_side owner)
{
	mig_do(actions, (struct mig_action){ .kind = MIG_DO_ASK, .epoch = epoch, .owner = owner });
}

static inline bool mig_is_message(const struct mig_event *event, enum mig_message message)
{
	return event->kind == MIG_EV_MESSAGE && event->message == message;
}

#endif
