/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/netvsp/netvsp_state.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct netvsp_state *state_make(void)
{
	struct netvsp_state *state = calloc(1, sizeof(*state));
	struct netvsp_control *control = &state->control;

	cr_assert_not_null(state);
	control->version = NVSP_VERSION_61;
	control->rndis_ready = true;
	control->link_shown = true;
	control->generation = 3;
	control->sub_count = 1;
	control->receive = (struct netvsp_state_buffer){ .is_set = true,
							 .is_receive = true,
							 .id = 0xCAFE,
							 .gpadl_id = 0xE1E10,
							 .section_bytes = 1728,
							 .section_count = 9709,
							 .shares = 2,
							 .generation = 3 };
	control->send = (struct netvsp_state_buffer){
		.is_set = true, .gpadl_id = 0xE1E11, .section_bytes = 6144, .section_count = 170
	};
	control->answer_first = NETVSP_ANSWERS_MAX - 1;
	control->answer_count = 2;
	control->answers[NETVSP_ANSWERS_MAX - 1].size_bytes = 16;
	control->answers[0].size_bytes = 544;
	control->answers[0].bytes[543] = 7;
	state->filter = 13;
	state->offloads = 0x3F;
	memcpy(state->mac, "\2\0\0\0\0\1", 6);
	state->waiting[1].is_set = true;
	state->waiting[1].trans_id = 77;
	state->used[0] = 9;
	state->used[9708 / 64] = 1ULL << (9708 % 64);
	return state;
}

Test(netvsp_state, what_is_written_is_read)
{
	struct netvsp_state *state = state_make();
	struct netvsp_state *again = calloc(1, sizeof(*again));
	struct base_buffer out = { 0 };
	struct base_buffer out_again = { 0 };
	struct base_reader in;

	cr_assert_not_null(again);
	netvsp_state_encode(state, &out);
	in = base_reader_over(out.data, out.size_bytes);
	cr_assert_eq(netvsp_state_decode(&in, again, NULL), 0);
	cr_assert_eq(again->control.receive.section_count, 9709);
	cr_assert_eq(again->control.answers[1].bytes[543], 7);
	cr_assert_eq(again->waiting[1].trans_id, 77);
	cr_assert_eq(memcmp(again->used, state->used, sizeof(state->used)), 0);
	netvsp_state_encode(again, &out_again);
	cr_assert_eq(out_again.size_bytes, out.size_bytes);
	cr_assert_eq(memcmp(out_again.data, out.data, out.size_bytes), 0);
	base_buffer_fini(&out);
	base_buffer_fini(&out_again);
	free(state);
	free(again);
}

Test(netvsp_state, no_prefix_is_a_state)
{
	struct netvsp_state *state = state_make();
	struct netvsp_state *again = calloc(1, sizeof(*again));
	struct base_buffer out = { 0 };

	netvsp_state_encode(state, &out);
	for (size_t size = 0; size < out.size_bytes; size++) {
		struct base_reader in = base_reader_over(out.data, size);
		struct base_error err = { 0 };

		cr_assert_eq(netvsp_state_decode(&in, again, &err), -EBADMSG, "%zu", size);
		cr_assert_eq(err.code, -EBADMSG);
	}
	base_buffer_fini(&out);
	free(state);
	free(again);
}

static void refuse(void (*spoil)(struct netvsp_state *state), const char *what)
{
	struct netvsp_state *state = state_make();
	struct netvsp_state *again = calloc(1, sizeof(*again));
	struct base_buffer out = { 0 };
	struct base_reader in;

	spoil(state);
	netvsp_state_encode(state, &out);
	in = base_reader_over(out.data, out.size_bytes);
	cr_assert_eq(netvsp_state_decode(&in, again, NULL), -EBADMSG, "%s", what);
	base_buffer_fini(&out);
	free(state);
	free(again);
}

#define SPOIL(name, line)                                                                          \
	static void name(struct netvsp_state *state)                                               \
	{                                                                                          \
		line;                                                                              \
	}
SPOIL(bad_version, state->control.version = 5)
SPOIL(bad_filter, state->filter = 0x80000000)
SPOIL(bad_offloads, state->offloads = 0x40)
SPOIL(bad_mac, state->mac[0] = 1)
SPOIL(bad_subs, state->control.sub_count = 16)
SPOIL(bad_shares, state->control.receive.shares = 17)
SPOIL(no_shares, state->control.receive.shares = 0)
SPOIL(bad_count, state->control.receive.section_count = 32769)
SPOIL(small_section, state->control.receive.section_bytes = 600)
SPOIL(no_generation, state->control.receive.generation = 0)
SPOIL(send_shares, state->control.send.shares = 1)
SPOIL(bad_used, state->used[9709 / 64] |= 1ULL << (9709 % 64))
SPOIL(bad_queue, state->waiting[2].is_set = true)
SPOIL(no_version, state->control.version = 0)
SPOIL(not_ready, state->control.rndis_ready = false)

Test(netvsp_state, what_cannot_be_is_refused)
{
	refuse(bad_version, "version");
	refuse(bad_filter, "filter");
	refuse(bad_offloads, "offloads");
	refuse(bad_mac, "address");
	refuse(bad_subs, "sub-channels");
	refuse(bad_shares, "shares");
	refuse(no_shares, "no shares");
	refuse(bad_count, "section count");
	refuse(small_section, "section bytes");
	refuse(no_generation, "generation");
	refuse(send_shares, "shares of a send buffer");
	refuse(bad_used, "a section beyond");
	refuse(bad_queue, "a queue beyond");
	refuse(no_version, "no version");
	refuse(not_ready, "a filter without RNDIS");
}
