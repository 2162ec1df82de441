/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both sides of a live update.
 *
 * The new one runs after the old one's death only.  So whoever lives in GIVEN and sees the new one
 * dead knows that it never ran.
 */
#include "migrate/mig_update.h"

#include <stdbool.h>

static void add(struct mig_update_actions *out, enum mig_update_do what)
{
	out->list[out->count++] = what;
}

enum mig_update_old mig_update_old_begin(struct mig_update_actions *ret_actions)
{
	*ret_actions = (struct mig_update_actions){ 0 };
	add(ret_actions, MIG_UPDATE_DO_SEND_PLAN);
	return MIG_OLD_PLANNED;
}

static bool ends_it(enum mig_update_event event)
{
	return event == MIG_UPDATE_EV_FAULT || event == MIG_UPDATE_EV_LINK_LOST ||
	       event == MIG_UPDATE_EV_DEAD;
}

/* After the token only the new one's death gives the VM back. */
static bool gives_back(enum mig_update_event event)
{
#ifdef GODWIT_MUTANT_MIG_UPDATE_RESUME
	return ends_it(event);
#else
	return event == MIG_UPDATE_EV_DEAD;
#endif
}

static enum mig_update_old stay(enum mig_update_old state, struct mig_update_actions *out)
{
	add(out, MIG_UPDATE_DO_SEND_CANCEL);
	if (state != MIG_OLD_PLANNED)
		add(out, MIG_UPDATE_DO_RUN);
	return MIG_OLD_STAYS;
}

enum mig_update_old mig_update_old_step(enum mig_update_old state, enum mig_update_event event,
					struct mig_update_actions *ret_actions)
{
	struct mig_update_actions *out = ret_actions;

	*out = (struct mig_update_actions){ 0 };
	if (state == MIG_OLD_STAYS)
		return state;
	if (state == MIG_OLD_GIVEN ? gives_back(event) : ends_it(event))
		return stay(state, out);
	if (state == MIG_OLD_PLANNED && event == MIG_UPDATE_EV_BUILT) {
		add(out, MIG_UPDATE_DO_HOLD);
		return MIG_OLD_HOLDING;
	}
	if (state == MIG_OLD_HOLDING && event == MIG_UPDATE_EV_DONE) {
		add(out, MIG_UPDATE_DO_FREEZE);
		return MIG_OLD_FREEZING;
	}
	if (state == MIG_OLD_FREEZING && event == MIG_UPDATE_EV_DONE) {
		add(out, MIG_UPDATE_DO_SEND_STATE);
		return MIG_OLD_OFFERED;
	}
	if (state == MIG_OLD_OFFERED && event == MIG_UPDATE_EV_READY) {
		add(out, MIG_UPDATE_DO_SEND_TOKEN);
		return MIG_OLD_GIVEN;
	}
	return state;
}

static enum mig_update_new leave(struct mig_update_actions *out)
{
	add(out, MIG_UPDATE_DO_EXIT);
	return MIG_NEW_GONE;
}

static enum mig_update_new run(struct mig_update_actions *out)
{
	add(out, MIG_UPDATE_DO_RUN);
	return MIG_NEW_RUNS;
}

static enum mig_update_new take(struct mig_update_actions *out)
{
	add(out, MIG_UPDATE_DO_KILL);
#ifdef GODWIT_MUTANT_MIG_UPDATE_NO_WAIT
	return run(out);
#else
	return MIG_NEW_TAKING;
#endif
}

enum mig_update_new mig_update_new_step(enum mig_update_new state, enum mig_update_event event,
					struct mig_update_actions *ret_actions)
{
	struct mig_update_actions *out = ret_actions;

	*out = (struct mig_update_actions){ 0 };
	if (state == MIG_NEW_RUNS || state == MIG_NEW_GONE)
		return state;
	if (state == MIG_NEW_TAKING)
		return event == MIG_UPDATE_EV_DEAD ? run(out) : state;
	if (ends_it(event) || event == MIG_UPDATE_EV_CANCEL)
		return leave(out);
	if (state == MIG_NEW_WAITING && event == MIG_UPDATE_EV_PLAN) {
		add(out, MIG_UPDATE_DO_BUILD);
		return MIG_NEW_BUILDING;
	}
	if (state == MIG_NEW_BUILDING && event == MIG_UPDATE_EV_DONE) {
		add(out, MIG_UPDATE_DO_SEND_BUILT);
		return MIG_NEW_BUILT;
	}
	if (state == MIG_NEW_BUILT && event == MIG_UPDATE_EV_STATE) {
		add(out, MIG_UPDATE_DO_LOAD);
		return MIG_NEW_LOADING;
	}
	if (state == MIG_NEW_LOADING && event == MIG_UPDATE_EV_DONE) {
		add(out, MIG_UPDATE_DO_SEND_READY);
		return MIG_NEW_READY;
	}
	if (state == MIG_NEW_READY && event == MIG_UPDATE_EV_TOKEN)
		return take(out);
	return state;
}
