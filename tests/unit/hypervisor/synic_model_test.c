/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every interleaving of a poster and a guest on one message slot, with the store buffers of
 * two x86 processors.  The poster's steps are the product's own (hv_slot_next()); the guest is
 * as Linux does it: take the message, free the slot, fence, look at MessagePending, write EOM.
 * What must never happen: both stand still and a message has not arrived, or out of order.
 */
#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/synic_slot_priv.h"

#define MESSAGES   8u
#define BUFFER_MAX 4u
#define TABLE_SIZE (1u << 20)
#define STACK_SIZE (1u << 18)

/* Mistakes that the model has to find, or it proves nothing. */
enum fault {
	FAULT_NONE,
	FAULT_PLAIN_ASK,  /* MessagePending set without a lock prefix */
	FAULT_NO_RECHECK, /* no second look at the type */
	FAULT_NO_MORE,    /* a delivered message does not tell that more wait */
	FAULT_NO_FENCE,   /* the guest looks at the flag before its freeing is seen */
	FAULTS
};

enum var {
	VAR_TYPE,
	VAR_FLAGS,
	VAR_CONTENT,
	VARS
};

enum pc {
	PC_START, /* poster: the next post; guest: wait for an interrupt */
	PC_LOCK,
	PC_SLOT,
	PC_UNLOCK,
	PC_INTERRUPT,
	PC_TAKE,  /* guest: read the slot */
	PC_FREE,  /* guest: type 0 */
	PC_FENCE, /* guest */
	PC_FLAG,  /* guest: more? */
	PCS
};

enum who {
	POSTER,
	GUEST,
	THREADS
};

/* Bytes only, so that states compare by memcmp(). */
struct thread {
	uint8_t pc;
	uint8_t step; /* enum hv_slot_step */
	uint8_t seen;
	uint8_t delivered;
	uint8_t count; /* stores that wait in the buffer, oldest first */
	uint8_t vars[BUFFER_MAX];
	uint8_t values[BUFFER_MAX];
};

struct state {
	uint8_t memory[VARS];
	uint8_t lock; /* 0 free, else 1 + who */
	uint8_t interrupt;
	uint8_t posted;
	uint8_t queued;
	uint8_t arrived;
	uint8_t wrong;
	struct thread threads[THREADS];
};

static uint8_t load(const struct state *state, const struct thread *thread, enum var var)
{
	for (uint32_t i = thread->count; i > 0; i--)
		if (thread->vars[i - 1] == var)
			return thread->values[i - 1];
	return state->memory[var];
}

static void store(struct thread *thread, enum var var, uint8_t value)
{
	cr_assert_lt(thread->count, BUFFER_MAX);
	thread->vars[thread->count] = (uint8_t)var;
	thread->values[thread->count++] = value;
}

static void drain(struct state *state, struct thread *thread)
{
	state->memory[thread->vars[0]] = thread->values[0];
	thread->count--;
	memmove(thread->vars, thread->vars + 1, BUFFER_MAX - 1);
	memmove(thread->values, thread->values + 1, BUFFER_MAX - 1);
	thread->vars[BUFFER_MAX - 1] = 0;
	thread->values[BUFFER_MAX - 1] = 0;
	for (uint32_t i = thread->count; i < BUFFER_MAX; i++) {
		thread->vars[i] = 0;
		thread->values[i] = 0;
	}
}

/* One access of the slot protocol; false: it has to wait for its stores. */
static bool slot_step(struct state *state, struct thread *thread, enum fault fault)
{
	enum hv_slot_step step = (enum hv_slot_step)thread->step;
	uint8_t head = (uint8_t)(state->posted - state->queued + 1);

	if (step == HV_SLOT_LOOK || step == HV_SLOT_LOOK_AGAIN) {
		thread->seen = load(state, thread, VAR_TYPE);
	} else if (step == HV_SLOT_ASK && fault == FAULT_PLAIN_ASK) {
		store(thread, VAR_FLAGS, 1);
	} else if (step == HV_SLOT_ASK) {
		if (thread->count > 0)
			return false;
		state->memory[VAR_FLAGS] = 1;
	} else if (step == HV_SLOT_FILL) {
		store(thread, VAR_FLAGS, state->queued > 1 && fault != FAULT_NO_MORE);
		store(thread, VAR_CONTENT, head);
	} else {
		store(thread, VAR_TYPE, 1);
	}
	if (step == HV_SLOT_ASK && fault == FAULT_NO_RECHECK)
		thread->step = HV_SLOT_BUSY;
	else
		thread->step = (uint8_t)hv_slot_next(step, thread->seen);
	if (thread->step == HV_SLOT_DELIVERED) {
		thread->delivered = 1;
		state->queued--;
	}
	if (thread->step == HV_SLOT_DELIVERED || thread->step == HV_SLOT_BUSY) {
		thread->pc = PC_UNLOCK;
		thread->step = 0;
		thread->seen = 0;
	}
	return true;
}

/* What poster and guest (at EOM) have in common. */
static bool deliver_step(struct state *state, enum who who, enum fault fault)
{
	struct thread *thread = &state->threads[who];

	switch (thread->pc) {
	case PC_LOCK: /* locked instructions let all stores out first */
		if (thread->count > 0 || state->lock != 0)
			return false;
		state->lock = (uint8_t)(1 + who);
		if (who == POSTER) {
			state->posted++;
			state->queued++;
		}
		thread->step = HV_SLOT_LOOK;
		thread->pc = state->queued > 0 ? PC_SLOT : PC_UNLOCK;
		return true;
	case PC_SLOT:
		return slot_step(state, thread, fault);
	case PC_UNLOCK:
		if (thread->count > 0)
			return false;
		state->lock = 0;
		thread->step = 0;
		thread->pc = thread->delivered != 0 ? PC_INTERRUPT : PC_START;
		thread->delivered = 0;
		return true;
	default:
		state->interrupt = 1;
		thread->pc = PC_START;
		return true;
	}
}

static bool guest_step(struct state *state, enum fault fault)
{
	struct thread *thread = &state->threads[GUEST];

	switch (thread->pc) {
	case PC_START:
		if (state->interrupt == 0)
			return false;
		state->interrupt = 0;
		thread->pc = PC_TAKE;
		return true;
	case PC_TAKE:
		if (load(state, thread, VAR_TYPE) == 0) {
			thread->pc = PC_START;
			return true;
		}
		if (load(state, thread, VAR_CONTENT) != ++state->arrived)
			state->wrong = 1;
		thread->pc = PC_FREE;
		return true;
	case PC_FREE:
		store(thread, VAR_TYPE, 0);
		thread->pc = fault == FAULT_NO_FENCE ? PC_FLAG : PC_FENCE;
		return true;
	case PC_FENCE:
		if (thread->count > 0)
			return false;
		thread->pc = PC_FLAG;
		return true;
	case PC_FLAG:
		thread->pc = load(state, thread, VAR_FLAGS) != 0 ? PC_LOCK : PC_START;
		return true;
	default:
		return deliver_step(state, GUEST, fault);
	}
}

static bool poster_step(struct state *state, enum fault fault)
{
	struct thread *thread = &state->threads[POSTER];

	if (thread->pc != PC_START)
		return deliver_step(state, POSTER, fault);
	if (state->posted == MESSAGES)
		return false;
	thread->pc = PC_LOCK;
	return true;
}

/* States seen so far, and those to go on from. */
struct search {
	struct state *table;
	bool *used;
	struct state *stack;
	uint32_t depth;
	uint32_t count;
};

static void visit(struct search *search, const struct state *state)
{
	uint32_t hash = 2166136261U;
	const uint8_t *bytes = (const uint8_t *)state;

	for (size_t i = 0; i < sizeof(*state); i++)
		hash = (hash ^ bytes[i]) * 16777619U;
	for (hash %= TABLE_SIZE; search->used[hash]; hash = (hash + 1) % TABLE_SIZE)
		if (memcmp(&search->table[hash], state, sizeof(*state)) == 0)
			return;
	cr_assert_lt(search->count, TABLE_SIZE / 2);
	cr_assert_lt(search->depth, STACK_SIZE);
	search->used[hash] = true;
	search->table[hash] = *state;
	search->count++;
	search->stack[search->depth++] = *state;
}

/* All that can come next; false when nothing can. */
static bool expand(struct search *search, const struct state *state, enum fault fault)
{
	bool any = false;

	for (uint32_t who = 0; who < THREADS; who++) {
		struct state next = *state;

		if (who == POSTER ? poster_step(&next, fault) : guest_step(&next, fault)) {
			any = true;
			visit(search, &next);
		}
		next = *state;
		if (next.threads[who].count > 0) {
			any = true;
			drain(&next, &next.threads[who]);
			visit(search, &next);
		}
	}
	return any;
}

/* True when a message can be lost or come out of order. */
static bool can_fail(enum fault fault, uint32_t *ret_states)
{
	struct search search = { .table = calloc(TABLE_SIZE, sizeof(struct state)),
				 .used = calloc(TABLE_SIZE, sizeof(bool)),
				 .stack = calloc(STACK_SIZE, sizeof(struct state)) };
	struct state start;
	bool failed = false;

	cr_assert(search.table != NULL && search.used != NULL && search.stack != NULL);
	memset(&start, 0, sizeof(start));
	visit(&search, &start);
	while (search.depth > 0 && !failed) {
		struct state state = search.stack[--search.depth];

		failed = state.wrong != 0;
		if (!expand(&search, &state, fault) && !failed)
			failed = state.arrived != MESSAGES || state.queued != 0;
	}
	*ret_states = search.count;
	free(search.table);
	free(search.used);
	free(search.stack);
	return failed;
}

Test(synic_model, no_message_is_lost_and_no_eom_is_missing)
{
	uint32_t states = 0;

	cr_assert_not(can_fail(FAULT_NONE, &states));
	cr_assert_gt(states, 1000, "%u states are not a model", states);
}

Test(synic_model, every_mistake_is_found)
{
	uint32_t states;

	for (int fault = FAULT_NONE + 1; fault < FAULTS; fault++)
		cr_assert(can_fail((enum fault)fault, &states), "fault %d", fault);
}
