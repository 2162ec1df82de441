/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No wake-up is lost: every interleaving of a writer and a reader of a small ring, with the store
 * buffers of x86-TSO, is walked through.  A state in which neither side can go on must be one
 * in which every packet has been read.
 *
 * Four sides: our writer against Linux's reader (with interrupt_mask in batches, and without:
 * HV_CALL_DIRECT), Linux's writer against our reader.  Ours are the programs of vmbus_ring.c and
 * vmbus_channel.c step by step, with the names of enum vmbus_ring_step; the last tests compare
 * these names with what the code does.  Each barrier and each second look is taken out in turn:
 * then the walk must find a lost wake-up, or the model would prove nothing.
 *
 * Units: a packet is 1, a ring of size S holds S - 1 of them; indices do not wrap.
 */
#include "hypervisor/vmbus/vmbus_ring.h"
#include "tests/unit/vmbus/vmbus_rig.h"

enum var {
	V_WRITE,
	V_READ,
	V_MASK,
	V_PENDING,
	V_COUNT
};
enum side {
	WRITER,
	READER
};
#define BUFFER 6u /* more stores than any program makes between two drains */

enum mutation {
	KEEP_ALL,
	NO_WRITE_BARRIER,   /* our writer: between write index and mask */
	LATE_PUBLISH,       /* our writer: asks for room before it shows what it wrote */
	NO_PENDING_BARRIER, /* our writer: between pending_send_sz and the second look for room */
	NO_ROOM_RECHECK,    /* our writer: that look */
	NO_READ_BARRIER,    /* our reader: between read index, mask and the second look */
	NO_READ_RECHECK,    /* our reader: that look */
	NO_ROOM_SIGNAL,     /* our reader: does not tell a writer that waits */
};

struct config {
	bool host_writes;
	bool batched; /* Linux's reader uses interrupt_mask */
	uint8_t size;
	uint8_t packets;
	enum mutation mutation;
};

struct process {
	uint8_t pc;
	uint8_t index;     /* own */
	uint8_t published; /* our sides */
	uint8_t scratch;
	uint8_t pending;  /* our writer: as we set it */
	bool flag;        /* our writer: goes on after publishing; our reader: has seen it empty */
	bool unannounced; /* our writer: published, the reader not told yet */
	uint8_t stores;
	uint8_t var[BUFFER];
	uint8_t value[BUFFER];
};

struct state {
	uint8_t memory[V_COUNT];
	bool signal[2]; /* waits for this side */
	struct process process[2];
};

struct run {
	const struct config *config;
	struct state *s;
	struct process *me;
	enum side side;
	int choice; /* which way, where there are two */
	/* What was stepped, when somebody asks. */
	enum vmbus_ring_step *trace;
	uint32_t trace_count;
};

static void note(struct run *run, enum vmbus_ring_step step)
{
	if (run->trace != NULL)
		run->trace[run->trace_count++] = step;
}

static uint8_t load(struct run *run, enum var var, enum vmbus_ring_step step)
{
	note(run, step);
	for (uint8_t i = run->me->stores; i > 0; i--)
		if (run->me->var[i - 1] == var)
			return run->me->value[i - 1];
	return run->s->memory[var];
}

static void store(struct run *run, enum var var, uint8_t value, enum vmbus_ring_step step)
{
	note(run, step);
	cr_assert_lt(run->me->stores, BUFFER);
	run->me->var[run->me->stores] = (uint8_t)var;
	run->me->value[run->me->stores] = value;
	run->me->stores++;
}

/* A barrier can be passed when the buffer is empty; draining is a move of its own. */
static bool barrier(struct run *run, bool present)
{
	if (!present)
		return true;
	if (run->me->stores > 0)
		return false;
	note(run, VMBUS_STEP_BARRIER);
	return true;
}

/* An interrupt or hypercall drains the buffer, too. */
static bool send_signal(struct run *run, enum side to)
{
	if (run->me->stores > 0)
		return false;
	run->s->signal[to] = true;
	return true;
}

static bool take_signal(struct run *run)
{
	bool came = run->s->signal[run->side];

	run->s->signal[run->side] = false;
	return came;
}

static uint8_t room(const struct run *run, uint8_t write, uint8_t read)
{
	return (uint8_t)(run->config->size - (write - read));
}

static bool go(struct run *run, int pc)
{
	run->me->pc = (uint8_t)pc;
	return true;
}

/* --- our writer: vmbus_ring_put(), vmbus_ring_end_write(), vmbus_ring_take_room() --- */

enum {
	HW_SLEEP,
	HW_TAKE_ROOM,
	HW_CLEAR,
	HW_TOP,
	HW_ROOM,
	HW_WRITE,
	HW_EARLY,
	HW_PENDING,
	HW_PENDING_BARRIER,
	HW_PENDING_LOAD,
	HW_PUBLISH,
	HW_PUBLISH_BARRIER,
	HW_MASK,
	HW_SIGNAL,
	HW_AFTER,
};

static void host_writer_show(struct run *run)
{
	struct process *me = run->me;

	if (me->index == me->published)
		return;
	store(run, V_WRITE, me->index, VMBUS_STEP_STORE_WRITE);
	me->published = me->index;
	me->unannounced = true;
}

static bool host_writer_put(struct run *run)
{
	struct process *me = run->me;

	switch (me->pc) {
	case HW_TOP:
		me->flag = false;
		return go(run, me->index == run->config->packets ? HW_PUBLISH : HW_ROOM);
	case HW_ROOM:
		me->scratch = room(run, me->index, load(run, V_READ, VMBUS_STEP_LOAD_READ));
		return go(run, me->scratch > 1 ? HW_WRITE : HW_EARLY);
	case HW_WRITE: /* and the device goes on, or publishes first */
		me->index++;
		me->flag = run->choice == 1;
		return go(run, me->flag ? HW_PUBLISH : HW_TOP);
	case HW_EARLY:
		if (run->config->mutation != LATE_PUBLISH)
			host_writer_show(run);
		return go(run, HW_PENDING);
	case HW_PENDING:
		if (me->pending == 0 || me->scratch > me->pending) {
			store(run, V_PENDING, 1, VMBUS_STEP_STORE_PENDING);
			me->pending = 1;
		}
		return go(run, HW_PENDING_BARRIER);
	case HW_PENDING_BARRIER:
		return barrier(run, run->config->mutation != NO_PENDING_BARRIER) &&
		       go(run,
			  run->config->mutation == NO_ROOM_RECHECK ? HW_PUBLISH : HW_PENDING_LOAD);
	default:
		me->scratch = room(run, me->index, load(run, V_READ, VMBUS_STEP_LOAD_READ));
		return go(run, me->scratch > 1 ? HW_WRITE : HW_PUBLISH);
	}
}

static bool host_writer(struct run *run)
{
	struct process *me = run->me;

	switch (me->pc) {
	case HW_SLEEP:
		return take_signal(run) && go(run, me->pending != 0 ? HW_TAKE_ROOM : HW_TOP);
	case HW_TAKE_ROOM:
		me->scratch = room(run, me->index, load(run, V_READ, VMBUS_STEP_LOAD_READ));
		return go(run, me->scratch > me->pending ? HW_CLEAR : HW_TOP);
	case HW_CLEAR:
		store(run, V_PENDING, 0, VMBUS_STEP_CLEAR_PENDING);
		me->pending = 0;
		return go(run, HW_TOP);
	case HW_PUBLISH:
		host_writer_show(run);
		if (!me->unannounced)
			return go(run, HW_AFTER);
		me->unannounced = false;
		return go(run, HW_PUBLISH_BARRIER);
	case HW_PUBLISH_BARRIER:
		return barrier(run, run->config->mutation != NO_WRITE_BARRIER) && go(run, HW_MASK);
	case HW_MASK:
		return go(run, load(run, V_MASK, VMBUS_STEP_LOAD_MASK) == 0 ? HW_SIGNAL : HW_AFTER);
	case HW_SIGNAL:
		return send_signal(run, READER) && go(run, HW_AFTER);
	case HW_AFTER:
		return go(run, me->flag ? HW_TOP : HW_SLEEP);
	default:
		return host_writer_put(run);
	}
}

/* --- Linux's reader: begin_read, packets one by one, closing the iterator, end_read --- */

enum {
	LR_SLEEP,
	LR_MASK,
	LR_MASK_BARRIER,
	LR_START,
	LR_LOAD,
	LR_CLOSE,
	LR_CLOSE_BARRIER,
	LR_PENDING,
	LR_SIZE,
	LR_SIGNAL,
	LR_UNMASK,
	LR_UNMASK_BARRIER,
	LR_RECHECK,
};

static bool linux_reader_close(struct run *run)
{
	struct process *me = run->me;
	uint8_t now = 0;

	switch (me->pc) {
	case LR_CLOSE:
		store(run, V_READ, me->index, VMBUS_STEP_STORE_READ);
		return go(run, LR_CLOSE_BARRIER);
	case LR_CLOSE_BARRIER:
		return barrier(run, true) && go(run, LR_PENDING);
	case LR_PENDING:
		me->pending = load(run, V_PENDING, VMBUS_STEP_LOAD_PENDING);
		return go(run, me->pending == 0 ? LR_START : LR_SIZE);
	case LR_SIZE: /* only the moment at which room grows beyond what is wanted counts */
		now = room(run, load(run, V_WRITE, VMBUS_STEP_LOAD_WRITE), me->index);
		if (now - (me->index - me->scratch) > me->pending || now <= me->pending)
			return go(run, LR_START);
		return go(run, LR_SIGNAL);
	default:
		return send_signal(run, WRITER) && go(run, LR_START);
	}
}

static bool linux_reader(struct run *run)
{
	struct process *me = run->me;

	switch (me->pc) {
	case LR_SLEEP:
		return take_signal(run) && go(run, run->config->batched ? LR_MASK : LR_START);
	case LR_MASK:
		store(run, V_MASK, 1, VMBUS_STEP_MASK);
		return go(run, LR_MASK_BARRIER);
	case LR_MASK_BARRIER:
		return barrier(run, true) && go(run, LR_START);
	case LR_START:
		me->scratch = me->index;
		return go(run, LR_LOAD);
	case LR_LOAD:
		if (load(run, V_WRITE, VMBUS_STEP_LOAD_WRITE) != me->index) {
			me->index++;
			return go(run, run->choice == 1 ? LR_CLOSE : LR_LOAD);
		}
		if (me->index != me->scratch)
			return go(run, LR_CLOSE);
		return go(run, run->config->batched ? LR_UNMASK : LR_SLEEP);
	case LR_UNMASK:
		store(run, V_MASK, 0, VMBUS_STEP_UNMASK);
		return go(run, LR_UNMASK_BARRIER);
	case LR_UNMASK_BARRIER:
		return barrier(run, true) && go(run, LR_RECHECK);
	case LR_RECHECK:
		return go(run, load(run, V_WRITE, VMBUS_STEP_LOAD_WRITE) != me->index ? LR_MASK
										      : LR_SLEEP);
	default:
		return linux_reader_close(run);
	}
}

/* --- our reader: serve(), vmbus_ring_get(), vmbus_ring_end_read() --- */

enum {
	HR_SLEEP,
	HR_MASK,
	HR_GET,
	HR_PUBLISH,
	HR_UNMASK,
	HR_BARRIER,
	HR_PENDING,
	HR_SIZE,
	HR_SIGNAL,
	HR_RECHECK,
};

static bool host_reader_end(struct run *run)
{
	struct process *me = run->me;
	uint8_t write = 0;

	switch (me->pc) {
	case HR_BARRIER:
		return barrier(run, run->config->mutation != NO_READ_BARRIER) &&
		       go(run, me->scratch != 0 ? HR_PENDING : HR_RECHECK);
	case HR_PENDING:
		me->pending = load(run, V_PENDING, VMBUS_STEP_LOAD_PENDING);
		return go(run, me->pending != 0 ? HR_SIZE : HR_RECHECK);
	case HR_SIZE:
		write = load(run, V_WRITE, VMBUS_STEP_LOAD_WRITE);
		return go(run, room(run, write, me->index) >= me->pending ? HR_SIGNAL : HR_RECHECK);
	case HR_SIGNAL:
		if (run->config->mutation != NO_ROOM_SIGNAL && !send_signal(run, WRITER))
			return false;
		return go(run, HR_RECHECK);
	default:
		if (!me->flag)
			return go(run, HR_MASK); /* the device asked to be called again */
		if (run->config->mutation == NO_READ_RECHECK)
			return go(run, HR_SLEEP);
		write = load(run, V_WRITE, VMBUS_STEP_LOAD_WRITE);
		return go(run, write != me->index ? HR_MASK : HR_SLEEP);
	}
}

static bool host_reader(struct run *run)
{
	struct process *me = run->me;

	switch (me->pc) {
	case HR_SLEEP:
		return take_signal(run) && go(run, HR_MASK);
	case HR_MASK:
		store(run, V_MASK, 1, VMBUS_STEP_MASK);
		return go(run, HR_GET);
	case HR_GET:
		me->flag = load(run, V_WRITE, VMBUS_STEP_LOAD_WRITE) == me->index;
		if (me->flag)
			return go(run, HR_PUBLISH);
		me->index++;
		return go(run, run->choice == 1 ? HR_PUBLISH : HR_GET);
	case HR_PUBLISH:
		me->scratch = me->index != me->published ? 1 : 0;
		if (me->scratch != 0)
			store(run, V_READ, me->index, VMBUS_STEP_STORE_READ);
		me->published = me->index;
		return go(run, HR_UNMASK);
	case HR_UNMASK:
		store(run, V_MASK, 0, VMBUS_STEP_UNMASK);
		return go(run, HR_BARRIER);
	default:
		return host_reader_end(run);
	}
}

/* --- Linux's writer, one that uses pending_send_sz --- */

enum {
	GW_SLEEP,
	GW_CLEAR,
	GW_TOP,
	GW_PENDING,
	GW_PENDING_BARRIER,
	GW_PENDING_LOAD,
	GW_PUBLISH,
	GW_PUBLISH_BARRIER,
	GW_MASK,
	GW_READ,
	GW_SIGNAL,
};

static bool linux_writer_room(struct run *run)
{
	struct process *me = run->me;
	uint8_t now = 0;

	switch (me->pc) {
	case GW_TOP:
		if (me->index == run->config->packets)
			return go(run, GW_SLEEP);
		now = room(run, me->index, load(run, V_READ, VMBUS_STEP_LOAD_READ));
		return go(run, now > 1 ? GW_PUBLISH : GW_PENDING);
	case GW_PENDING:
		store(run, V_PENDING, 2, VMBUS_STEP_STORE_PENDING);
		return go(run, GW_PENDING_BARRIER);
	case GW_PENDING_BARRIER:
		return barrier(run, true) && go(run, GW_PENDING_LOAD);
	default:
		now = room(run, me->index, load(run, V_READ, VMBUS_STEP_LOAD_READ));
		return go(run, now > 1 ? GW_PUBLISH : GW_SLEEP);
	}
}

static bool linux_writer(struct run *run)
{
	struct process *me = run->me;

	switch (me->pc) {
	case GW_SLEEP: /* some clear their wish, some leave it there for ever */
		return take_signal(run) && go(run, run->choice == 1 ? GW_CLEAR : GW_TOP);
	case GW_CLEAR:
		store(run, V_PENDING, 0, VMBUS_STEP_CLEAR_PENDING);
		return go(run, GW_TOP);
	case GW_PUBLISH:
		me->scratch = me->index++;
		store(run, V_WRITE, me->index, VMBUS_STEP_STORE_WRITE);
		return go(run, GW_PUBLISH_BARRIER);
	case GW_PUBLISH_BARRIER:
		return barrier(run, true) && go(run, GW_MASK);
	case GW_MASK:
		return go(run, load(run, V_MASK, VMBUS_STEP_LOAD_MASK) != 0 ? GW_TOP : GW_READ);
	case GW_READ: /* only when the ring was empty */
		return go(run, load(run, V_READ, VMBUS_STEP_LOAD_READ) == me->scratch ? GW_SIGNAL
										      : GW_TOP);
	case GW_SIGNAL:
		return send_signal(run, READER) && go(run, GW_TOP);
	default:
		return linux_writer_room(run);
	}
}

/* --- the walk --- */

static bool step_of(struct run *run)
{
	if (run->me->stores == BUFFER)
		return false; /* a full buffer stalls the processor */
	if (run->side == WRITER)
		return run->config->host_writes ? host_writer(run) : linux_writer(run);
	return run->config->host_writes ? linux_reader(run) : host_reader(run);
}

static bool drain(struct process *process, uint8_t memory[V_COUNT])
{
	if (process->stores == 0)
		return false;
	memory[process->var[0]] = process->value[0];
	process->stores--;
	memmove(process->var, process->var + 1, BUFFER - 1);
	memmove(process->value, process->value + 1, BUFFER - 1);
	process->var[BUFFER - 1] = 0;
	process->value[BUFFER - 1] = 0;
	return true;
}

/* Forget what an emptied place of a buffer held, so that equal states look equal. */
static void tidy(struct state *s)
{
	for (int i = 0; i < 2; i++)
		for (uint8_t k = s->process[i].stores; k < BUFFER; k++) {
			s->process[i].var[k] = 0;
			s->process[i].value[k] = 0;
		}
}

#define SLOTS (1u << 21)

struct walk {
	const struct config *config;
	struct state *seen; /* SLOTS of them */
	uint8_t *used;
	struct state *stack;
	uint32_t depth;
	uint32_t state_count;
	uint32_t lost_count;
};

static void visit(struct walk *walk, const struct state *s)
{
	const uint8_t *bytes = (const uint8_t *)s;
	uint64_t hash = 1469598103934665603ULL;
	uint32_t slot = 0;

	for (size_t i = 0; i < sizeof(*s); i++)
		hash = (hash ^ bytes[i]) * 1099511628211ULL;
	slot = (uint32_t)(hash ^ hash >> 32) % SLOTS;
	while (walk->used[slot] != 0) {
		if (memcmp(&walk->seen[slot], s, sizeof(*s)) == 0)
			return;
		slot = (slot + 1) % SLOTS;
	}
	cr_assert_lt(walk->state_count, SLOTS / 2);
	walk->used[slot] = 1;
	walk->seen[slot] = *s;
	walk->stack[walk->depth++] = *s;
	walk->state_count++;
}

static bool move(struct walk *walk, const struct state *from, enum side side, int choice)
{
	struct state next = *from;
	struct run run = { .config = walk->config, .s = &next, .side = side, .choice = choice };
	bool moved = false;

	run.me = &next.process[side];
	moved = choice == 2 ? drain(run.me, next.memory) : step_of(&run);
	if (!moved)
		return false;
	tidy(&next);
	visit(walk, &next);
	return true;
}

static void expand(struct walk *walk, const struct state *s)
{
	bool moved = false;

	for (int side = 0; side < 2; side++)
		for (int choice = 0; choice < 3; choice++)
			moved = move(walk, s, (enum side)side, choice) || moved;
	if (!moved && (s->memory[V_READ] != walk->config->packets ||
		       s->memory[V_WRITE] != walk->config->packets))
		walk->lost_count++;
}

static uint32_t lost_in(const struct config *config, uint32_t *ret_states)
{
	struct walk walk = { .config = config };
	struct state start;

	memset(&start, 0, sizeof(start));
	start.signal[WRITER] = true; /* it has something to send */
	walk.seen = malloc((size_t)SLOTS * sizeof(*walk.seen));
	walk.stack = malloc((size_t)SLOTS / 2 * sizeof(*walk.stack));
	walk.used = calloc(SLOTS, 1);
	cr_assert(walk.seen != NULL && walk.stack != NULL && walk.used != NULL);
	visit(&walk, &start);
	while (walk.depth > 0) {
		const struct state s = walk.stack[--walk.depth];

		expand(&walk, &s);
	}
	free(walk.seen);
	free(walk.stack);
	free(walk.used);
	*ret_states = walk.state_count;
	return walk.lost_count;
}

static void nothing_is_lost(bool host_writes, bool batched)
{
	for (uint8_t size = 2; size <= 4; size++) {
		const struct config config = {
			.host_writes = host_writes, .batched = batched, .size = size, .packets = 4
		};
		uint32_t states = 0;

		cr_assert_eq(lost_in(&config, &states), 0, "ring of %u", (unsigned int)size);
		cr_assert_gt(states, 100);
		cr_log_info("ring of %u: %u states", (unsigned int)size, states);
	}
}

Test(vmbus_ring_model, our_writer_and_a_reader_in_batches)
{
	nothing_is_lost(true, true);
}

Test(vmbus_ring_model, our_writer_and_a_direct_reader)
{
	nothing_is_lost(true, false);
}

Test(vmbus_ring_model, linux_writer_and_our_reader)
{
	nothing_is_lost(false, false);
}

static bool is_found(enum mutation mutation, bool host_writes)
{
	for (uint8_t size = 2; size <= 4; size++)
		for (int batched = 0; batched < 2; batched++) {
			const struct config config = { .host_writes = host_writes,
						       .batched = batched == 1,
						       .size = size,
						       .packets = 4,
						       .mutation = mutation };
			uint32_t states = 0;

			if (lost_in(&config, &states) > 0)
				return true;
		}
	return false;
}

Test(vmbus_ring_model, each_barrier_and_each_second_look_is_needed)
{
	cr_assert(is_found(NO_WRITE_BARRIER, true));
	cr_assert(is_found(LATE_PUBLISH, true));
	cr_assert(is_found(NO_PENDING_BARRIER, true));
	cr_assert(is_found(NO_ROOM_RECHECK, true));
	cr_assert(is_found(NO_READ_BARRIER, false));
	cr_assert(is_found(NO_READ_RECHECK, false));
	cr_assert(is_found(NO_ROOM_SIGNAL, false));
}

/* --- the code makes the steps of the model, in its order --- */

#define TRACE_MAX 64u

struct trace {
	enum vmbus_ring_step steps[TRACE_MAX];
	uint32_t count;
};

static void hook(void *context, enum vmbus_ring_step step)
{
	struct trace *trace = context;

	if (step != VMBUS_STEP_INVALID && trace->count < TRACE_MAX)
		trace->steps[trace->count++] = step;
}

/* The model's side alone, from a signal until it sleeps; its stores land at once. */
static void model_alone(const struct config *config, struct state *s, enum side side,
			struct trace *trace)
{
	struct run run = { .config = config, .s = s, .me = &s->process[side], .side = side };

	run.trace = trace->steps;
	s->signal[side] = true;
	do {
		while (drain(run.me, s->memory))
			continue;
		cr_assert(step_of(&run));
		cr_assert_lt(run.trace_count, TRACE_MAX - 4);
	} while (run.me->pc != 0);
	while (drain(run.me, s->memory))
		continue;
	trace->count = run.trace_count;
}

static void same(const struct trace *code, const struct trace *model)
{
	cr_assert_eq(code->count, model->count, "code %u steps, model %u", code->count,
		     model->count);
	for (uint32_t i = 0; i < code->count; i++)
		cr_assert_eq(code->steps[i], model->steps[i], "step %u: code %d, model %d", i,
			     (int)code->steps[i], (int)model->steps[i]);
}

/* A ring with one page of data, which holds three packets of this kind. */
#define PAYLOAD_BYTES 1000u

Test(vmbus_ring_model, our_writer_is_the_model_s)
{
	static const uint8_t payload[PAYLOAD_BYTES];
	const struct vmbus_send send = { .type = VMBUS_PACKET_INBAND,
					 .payload = payload,
					 .payload_bytes = PAYLOAD_BYTES };
	const struct config config = { .host_writes = true, .size = 4, .packets = 5 };
	struct trace code = { .count = 0 };
	struct trace model = { .count = 0 };
	struct state s;
	struct rig rig;
	struct vmbus_ring *ring = NULL;

	memset(&s, 0, sizeof(s));
	rig_begin(&rig, 2);
	ring = &rig.echo.channel->out;
	ring->hook = hook;
	ring->hook_context = &code;
	/* Fills it, waits for room, publishes, signals. */
	while (vmbus_ring_put(ring, &send) == 0)
		continue;
	cr_assert(vmbus_ring_end_write(ring));
	model_alone(&config, &s, WRITER, &model);
	same(&code, &model);
	cr_assert_eq(s.memory[V_PENDING], 1);
	/* The reader takes two; there is room, and the other two go. */
	*vmbus_guest_ring_word(&rig.channel, true, VMBUS_RING_READ_INDEX) = 2 * (1000 + 24);
	s.memory[V_READ] = 2;
	code.count = 0;
	cr_assert(vmbus_ring_take_room(ring));
	cr_assert_eq(vmbus_ring_put(ring, &send), 0);
	cr_assert_eq(vmbus_ring_put(ring, &send), 0);
	cr_assert(vmbus_ring_end_write(ring));
	model_alone(&config, &s, WRITER, &model);
	same(&code, &model);
	rig_end(&rig);
}

Test(vmbus_ring_model, our_reader_is_the_model_s)
{
	static const uint8_t payload[PAYLOAD_BYTES];
	const struct config config = { .size = 4, .packets = 2 };
	struct trace code = { .count = 0 };
	struct trace model = { .count = 0 };
	struct state s;
	struct rig rig;

	memset(&s, 0, sizeof(s));
	rig_begin(&rig, 2);
	rig.echo.mute = true;
	rig.echo.channel->in.hook = hook;
	rig.echo.channel->in.hook_context = &code;
	for (int i = 0; i < 2; i++) {
		struct iovec pieces[2] = { { NULL, 0 }, { NULL, PAYLOAD_BYTES } };

		pieces[0].iov_base = (void *)(uintptr_t)payload;
		pieces[1].iov_base = (void *)(uintptr_t)payload;
		cr_assert_eq(
			vmbus_guest_send(&rig.channel, VMBUS_PACKET_INBAND, 0, 1, pieces, false),
			0);
	}
	*vmbus_guest_ring_word(&rig.channel, false, VMBUS_RING_PENDING) = 2048;
	s.memory[V_WRITE] = 2;
	s.memory[V_PENDING] = 2;
	vmbus_guest_signal(&rig.channel);
	model_alone(&config, &s, READER, &model);
	same(&code, &model);
	rig_end(&rig);
}

/* A packet that comes after the device has found the ring empty, while we are masked: nobody
 * tells of it, the second look finds it. */
struct late {
	struct rig *rig;
	uint32_t loads;
};

static void write_late(void *context, enum vmbus_ring_step step)
{
	static const uint64_t word = 1;
	struct late *late = context;

	/* Between the last look of the device and the unmasking. */
	if (step != VMBUS_STEP_UNMASK || late->loads++ > 0)
		return;
	cr_assert_eq(vmbus_guest_send_inband(&late->rig->channel, 2, &word, sizeof(word), false),
		     0);
}

Test(vmbus_ring_model, a_packet_while_we_are_masked_is_found)
{
	static const uint64_t word = 1;
	struct late late = { .rig = NULL };
	struct rig rig;

	rig_begin(&rig, 0);
	late.rig = &rig;
	rig.echo.mute = true;
	rig.echo.channel->in.hook = write_late;
	rig.echo.channel->in.hook_context = &late;
	cr_assert_eq(vmbus_guest_send_inband(&rig.channel, 1, &word, sizeof(word), false), 0);
	vmbus_guest_run(rig.guest);
	cr_assert_eq(rig.echo.packet_count, 2);
	rig_end(&rig);
}
