/* SPDX-License-Identifier: Apache-2.0 */
/* A dry run: what is measured on the way, and nothing moved: docs/migrate/forecast.md. */
#include <errno.h>
#include <inttypes.h>

#include "base/cleanup.h"
#include "migrate/mig_out_priv.h"

#define POINTS   12u /* each at twice the time of the one before */
#define BURST_NS (50 * BASE_NS_PER_MS)

/* Bytes that the log and the images' harvests name; spans with any, in @ret_hot. */
static int count_written(struct mig_out *out, uint64_t *ret_bytes, uint64_t *ret_hot,
			 struct base_error *err)
{
	const size_t words_per_span = MIG_SPAN_BYTES / MIG_PAGE_BYTES / 64;
	uint64_t pages = 0;
	int r = out->options.vm->dirty.get(out->options.vm_context, out->scratch, err);

	if (r == 0 && out->image != NULL)
		r = mig_image_harvest(out->image, &out->image_bytes, err);
	if (r < 0)
		return r;
	*ret_hot = out->image_bytes;
	for (size_t i = 0; i < out->word_count; i += words_per_span) {
		uint64_t of_span = 0;

		for (size_t j = i; j < i + words_per_span && j < out->word_count; j++)
			of_span += (uint64_t)__builtin_popcountll(out->scratch[j]);
		pages += of_span;
		*ret_hot += of_span > 0 ? MIG_SPAN_BYTES : 0;
	}
	*ret_bytes = pages * MIG_PAGE_BYTES + out->image_bytes;
	return 0;
}

static int forget_all(struct mig_out *out, struct base_error *err)
{
	uint64_t bytes = 0;
	int r = out->options.vm->dirty.get(out->options.vm_context, out->scratch, err);

	if (r == 0 && out->image != NULL)
		r = mig_image_harvest(out->image, &bytes, err);
	if (r == 0)
		r = out->options.vm->dirty.clear(out->options.vm_context, 0, out->page_count,
						 out->scratch, err);
	if (r == 0)
		mig_copy_confirmed(out->copy);
	out->image_bytes = 0;
	return r;
}

/* False: the user has enough of it, or the connection is gone. */
static bool wait_until(struct mig_out *out, uint64_t until_ns)
{
	BASE_LOCKED(&out->lock);

	while (!out->stop && !out->lost && base_cond_wait(&out->changed, &out->lock, until_ns))
		continue;
	return !out->stop && !out->lost;
}

static int measure_writes(struct mig_out *out, uint64_t whole_ns, struct base_error *err)
{
	struct mig_forecast_facts *facts = &out->facts;
	uint64_t begin_ns = mig_out_now();
	int r = forget_all(out, err);

	for (uint32_t i = 0; r == 0 && i < POINTS; i++) {
		struct mig_forecast_point *point = &facts->curve.points[i];

		if (!wait_until(out, begin_ns + (whole_ns >> (POINTS - 1 - i))))
			return base_fail(err, -ECANCELED, "migration: stopped");
		r = count_written(out, &point->bytes, &facts->hot_bytes, err);
		point->after_ns = mig_out_now() - begin_ns;
		facts->curve.count = i + 1;
	}
	return r;
}

/* As much of the first round as goes into half of the time, and an empty one. */
static int measure_rate(struct mig_out *out, uint64_t most_ns, struct base_error *err)
{
	struct mig_forecast_facts *facts = &out->facts;
	uint64_t begin_ns = mig_out_now();
	uint64_t took_ns = 0;
	int r = mig_out_copy_sample(out, 0, begin_ns + most_ns, true, err);

	took_ns = mig_out_now() - begin_ns;
	if (r < 0)
		return r;
	for (size_t i = 0; i < out->word_count; i++)
		out->dirty[i] = 0;
	mig_copy_confirmed(out->copy);
	out->image_bytes = 0;
	begin_ns = mig_out_now();
	r = mig_out_copy_sample(out, 1, begin_ns + most_ns, true, err);
	facts->round_ns = mig_out_now() - begin_ns;
	took_ns = took_ns > facts->round_ns ? took_ns - facts->round_ns : 1;
	facts->rate_bytes_per_s = mig_out_moved_bytes(out) * BASE_NS_PER_SECOND / took_ns;
	return r;
}

/* The last round does not wait for a cap: what it would be without, in a moment. */
static int measure_last_rate(struct mig_out *out, struct base_error *err)
{
	uint64_t bytes = mig_out_moved_bytes(out);
	uint64_t begin_ns = mig_out_now();
	uint64_t took_ns = 0;
	int r = out->options.vm->touched(out->options.vm_context, out->dirty, err);

	if (r == 0)
		r = mig_out_copy_sample(out, 2, begin_ns + BURST_NS, false, err);
	if (r < 0)
		return r;
	mig_copy_confirmed(out->copy);
	out->image_bytes = 0;
	took_ns = mig_out_now() - begin_ns;
	out->facts.last_bytes_per_s =
		(mig_out_moved_bytes(out) - bytes) * BASE_NS_PER_SECOND /
		(took_ns > out->facts.round_ns ? took_ns - out->facts.round_ns : 1);
	return 0;
}

int mig_out_forecast_measure(struct mig_out *out, struct base_error *err)
{
	struct mig_forecast_facts *facts = &out->facts;
	uint64_t half_ns = (uint64_t)out->options.forecast_ms * BASE_NS_PER_MS / 2;
	int r = mig_out_copy_first(out, err);

	if (r < 0)
		return r;
	facts->pace = out->options.pace;
	facts->quick = out->options.quick;
	facts->begin_ns = out->times.linked_ns - out->times.entered_ns;
	facts->total_bytes = out->pace.total_bytes;
	r = measure_rate(out, half_ns, err);
	if (r == 0 && !facts->quick && out->options.rate != NULL)
		r = measure_last_rate(out, err);
	if (r == 0 && !facts->quick)
		r = measure_writes(out, half_ns, err);
	if (r < 0)
		return r;
	(void)base_fail(err, -ECANCELED, "a dry run: nothing is moved");
	mig_out_note(out, -ECANCELED, err);
	BASE_LOCKED(&out->lock);
	out->has_facts = true;
	return 0;
}

bool mig_out_forecast(const struct mig_out *out, struct mig_forecast_facts *ret_facts,
		      struct mig_forecast *ret_forecast)
{
	if (!out->has_facts)
		return false;
	*ret_facts = out->facts;
	*ret_forecast = mig_forecast_make(&out->facts);
	return true;
}
