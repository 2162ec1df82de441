/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a migration would be like, from what was measured in some seconds: pure.
 *
 * The rounds are gone through as they would be made, by the rules of mig_pace.h, with the rate that
 * was seen and with what the guest was seen to write in a round's time; and again with a better and
 * a worse rate, and a guest that writes less and more, which is the margin.
 * docs/migrate/forecast.md.
 *
 * Threads: values.
 */
#ifndef MIGRATE_MIG_FORECAST_H
#define MIGRATE_MIG_FORECAST_H

#include "migrate/mig_pace.h"

#define MIG_FORECAST_POINTS_MAX 32u

/* How many bytes of memory and disks are written at least once within a time. */
struct mig_forecast_curve {
	uint32_t count;
	struct mig_forecast_point {
		uint64_t after_ns;
		uint64_t bytes;
	} points[MIG_FORECAST_POINTS_MAX]; /* rising in both; without any nothing is written */
};

struct mig_forecast_facts {
	uint64_t total_bytes; /* of the first round */
	uint64_t rate_bytes_per_s;
	uint64_t last_bytes_per_s; /* of the last round, which no cap holds up; 0: as the others */
	uint64_t round_ns;         /* what a round costs besides sending */
	uint64_t begin_ns;         /* what it took to be agreed */
	uint64_t hot_bytes;        /* of the spans that the guest wrote to */
	bool quick;
	struct mig_pace_options pace;
	struct mig_forecast_curve curve;
};

struct mig_forecast {
	bool meets_goal; /* of the blackout; false: by the action of struct mig_pace_options */
	bool is_cancelled;
	bool is_post;    /* by post-copy: what is left follows, and is in the time */
	uint32_t rounds; /* the last one too */
	uint64_t total_ns, total_margin_ns;
	uint64_t blackout_ns, blackout_margin_ns;
	uint64_t dirty_bytes_per_s; /* over the longest time of the curve */
};

/* Within @after_ns; behind the last point at the slope of the last two (@grows) or no more. */
uint64_t mig_forecast_written(const struct mig_forecast_curve *curve, uint64_t after_ns,
			      bool grows);
struct mig_forecast mig_forecast_make(const struct mig_forecast_facts *facts);

#endif
