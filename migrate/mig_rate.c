/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_rate.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "migrate/mig_scale_priv.h"

#define BURST_NS    (BASE_NS_PER_SECOND / 10)
#define NAP_NS      (20 * BASE_NS_PER_MS) /* how late a stop is seen at most */
/* Of a shared state: what is owed when nothing more is taken, and with what was taken last. */
#define OWED_NS     BASE_NS_PER_SECOND
#define OWED_NS_MAX (4 * BASE_NS_PER_SECOND)

struct mig_rate {
	pthread_mutex_t lock; /* a leaf: the state */
	struct mig_rate_state state;
	struct mig_host *host; /* NULL: none */
};

uint64_t mig_rate_step(struct mig_rate_state *state, uint64_t now_ns, uint64_t bytes)
{
	uint64_t earliest_ns = now_ns > BURST_NS ? now_ns - BURST_NS : 0;
	uint64_t wait_ns = 0;

	if (state->bytes_per_s == 0)
		return 0;
	if (state->free_ns < earliest_ns) /* what was not used is lost, but for a burst */
		state->free_ns = earliest_ns;
	wait_ns = state->free_ns > now_ns ? state->free_ns - now_ns : 0;
	if (__builtin_add_overflow(state->free_ns,
				   mig_scale(bytes, BASE_NS_PER_SECOND, state->bytes_per_s),
				   &state->free_ns))
		state->free_ns = UINT64_MAX;
	return wait_ns;
}

bool mig_rate_is_foreign(uint64_t free_ns, uint64_t now_ns)
{
	return free_ns > now_ns && free_ns - now_ns > OWED_NS_MAX;
}

bool mig_rate_step_shared(struct mig_rate_state *state, uint64_t now_ns, uint64_t bytes,
			  uint64_t *ret_wait_ns)
{
#ifndef GODWIT_MUTANT_MIG_HOST_FOREIGN
	if (mig_rate_is_foreign(state->free_ns, now_ns))
		state->free_ns = 0;
#endif
	if (state->free_ns > now_ns && state->free_ns - now_ns > OWED_NS)
		return false;
	*ret_wait_ns = mig_rate_step(state, now_ns, bytes);
	if (mig_rate_is_foreign(state->free_ns, now_ns)) /* more bytes than anybody posts at once */
		state->free_ns = now_ns + OWED_NS_MAX;
	return true;
}

int mig_rate_check(uint64_t bytes_per_s, struct base_error *err)
{
	if (bytes_per_s != 0 && bytes_per_s < MIG_RATE_MIN_BYTES_PER_S)
		return base_fail(err, -EINVAL,
				 "bandwidth: %" PRIu64
				 " bytes a second, expected 0 (no limit) or at least %u",
				 bytes_per_s, MIG_RATE_MIN_BYTES_PER_S);
	return 0;
}

int mig_rate_new(uint64_t bytes_per_s, struct mig_rate **ret_rate, struct base_error *err)
{
	struct mig_rate *rate = NULL;
	int r = mig_rate_check(bytes_per_s, err);

	if (r < 0)
		return r;
	rate = calloc(1, sizeof(*rate));
	if (rate == NULL)
		return base_fail(err, -ENOMEM, "migration: bandwidth");
	(void)pthread_mutex_init(&rate->lock, NULL); /* cannot fail on Linux */
	rate->state.bytes_per_s = bytes_per_s;
	*ret_rate = rate;
	return 0;
}

void mig_rate_free(struct mig_rate *rate)
{
	if (rate == NULL)
		return;
	(void)pthread_mutex_destroy(&rate->lock);
	free(rate);
}

/* What was promised under the old cap is forgotten: it may have been very low. */
int mig_rate_set(struct mig_rate *rate, uint64_t bytes_per_s, struct base_error *err)
{
	int r = mig_rate_check(bytes_per_s, err);
	BASE_LOCKED(&rate->lock);

	if (r == 0)
		rate->state = (struct mig_rate_state){ .bytes_per_s = bytes_per_s };
	return r;
}

void mig_rate_adjust(struct mig_rate *rate, uint64_t bytes_per_s)
{
	BASE_LOCKED(&rate->lock);

	base_assert(bytes_per_s >= MIG_RATE_MIN_BYTES_PER_S);
	rate->state.bytes_per_s = bytes_per_s;
}

void mig_rate_share(struct mig_rate *rate, struct mig_host *host)
{
	rate->host = host;
}

static void nap(uint64_t *left_ns)
{
	uint64_t nap_ns = *left_ns < NAP_NS ? *left_ns : NAP_NS;

	base_sleep_ns(nap_ns);
	*left_ns -= nap_ns;
}

/* Of the host: how long @bytes wait; 0 when it was stopped. */
static uint64_t wait_host(struct mig_host *host, uint64_t bytes, const atomic_bool *stop)
{
	uint64_t wait_ns = 0;

	while (!mig_host_reserve(host, base_clock_boot_ns(&base_clock_system), bytes, &wait_ns)) {
		if (atomic_load(stop))
			return 0;
		base_sleep_ns(NAP_NS);
	}
	return wait_ns;
}

void mig_rate_wait(struct mig_rate *rate, uint64_t bytes, const atomic_bool *stop)
{
	uint64_t wait_ns = 0;
	uint64_t host_ns = 0;

	if (rate == NULL)
		return;
	{
		BASE_LOCKED(&rate->lock);

		wait_ns =
			mig_rate_step(&rate->state, base_clock_boot_ns(&base_clock_system), bytes);
	}
	while (wait_ns > 0 && !atomic_load(stop))
		nap(&wait_ns);
	if (rate->host != NULL)
		host_ns = wait_host(rate->host, bytes, stop);
	while (host_ns > 0 && !atomic_load(stop))
		nap(&host_ns);
}
