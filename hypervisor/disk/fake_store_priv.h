/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of the fake store and what they are to each other.
 *
 *   fake_content.c      the bytes of one file: sparse pieces, shared copy-on-write
 *   fake_store.c        the provider: names, requests in flight, the plan, leases
 *   fake_store_image.c  peek, poke, clone, import, export
 *   fake_store_record.c the record of events
 *   fake_store_crash.c  what a power failure leaves
 *
 * All of it belongs to one thread, or to one loop and blocking callers of it.
 *
 * Invariants: slots of a content are sorted by index, each index once; a piece with more than
 * one reference is never changed; no byte past the size of a content is other than zero.
 */
#ifndef HYPERVISOR_DISK_FAKE_STORE_PRIV_H
#define HYPERVISOR_DISK_FAKE_STORE_PRIV_H

#include "hypervisor/disk/fake_store.h"

#include "base/bytes.h"
#include "base/cleanup.h"

/* gcc 12's analyzer loses a pointer that is stored through another one, and calls it a leak. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

#define FAKE_PIECE_BYTES     65536U
#define FAKE_UNIT_BYTES      4096U /* what capacity is counted in */
#define FAKE_UNITS_PER_PIECE (FAKE_PIECE_BYTES / FAKE_UNIT_BYTES)
#define FAKE_SECTOR_BYTES    512U         /* what a power failure tears at */
#define FAKE_RESERVE_MAX     (1ULL << 38) /* one ALLOCATE: its slots are kept in memory */
#define FAKE_SIZE_MAX        (1ULL << 62) /* of a file */
#define FAKE_FREE_BYTES      (1ULL << 50) /* free space of a store without a capacity */
#define FAKE_QUIESCE_TURNS   3U           /* how long it stays quiesced */

struct fake_piece {
	uint32_t references;
	uint8_t data[FAKE_PIECE_BYTES];
};

struct fake_slot {
	uint64_t index;           /* offset / FAKE_PIECE_BYTES */
	struct fake_piece *piece; /* NULL: zeros */
	uint16_t units;           /* a bit for each 4 KiB that holds space */
};

struct fake_content {
	uint32_t references;
	uint32_t id; /* within its store and that store's crash images */
	uint64_t size_bytes;
	uint64_t unit_count; /* bits set in all slots */
	struct fake_slot *slots;
	uint32_t slot_count;
	uint32_t slot_capacity;
	uint64_t lease_epoch;           /* newest that was granted */
	const struct fake_file *holder; /* NULL: not held */
	char holder_text[STORE_TEXT_BYTES];
};

struct fake_name {
	char name[STORE_NAME_BYTES];
	struct fake_content *content;
};

/* A name space: what the store shows, or what is durable of it. */
struct fake_names {
	struct fake_name **names;
	uint32_t count;
	uint32_t capacity;
};

struct fake_store {
	struct store store; /* first: see struct store_file_ops */
	struct fake_store_plan plan;
	uint64_t random;
	uint64_t counted;   /* requests of the plan's operations */
	uint64_t submitted; /* requests of all operations */
	bool gone;
	uint32_t next_id;
	uint32_t opened;
	struct fake_names names;
	struct fake_file *files; /* that are open */
	struct fake_recording *recording;
};

struct fake_file {
	struct store_file file; /* first */
	struct fake_content *content;
	struct fake_file *next;
	struct base_io_loop *loop;
	struct base_io_task tick;
	struct store_request *head; /* in flight, in the order they came */
	struct store_request *tail;
	bool queued; /* tick is */
	bool idle;   /* tick neither runs nor is queued */
	bool quiesce_wanted;
	bool quiescing;         /* store_quiesce() was called, it is not drained yet */
	uint32_t quiesce_turns; /* left until it resumes */
	bool granted;           /* it is the holder, or was until another took over */
	uint32_t number;        /* counts from 1: the holder's name */
};

static inline struct fake_store *fake_of(struct store *store)
{
	return (struct fake_store *)store; /* its first member */
}

static inline const struct fake_store *fake_of_const(const struct store *store)
{
	return (const struct fake_store *)store; /* its first member */
}

/* The next of a sequence of random numbers (xorshift64*); *@state is never 0. */
uint64_t fake_random(uint64_t *state);
/* A state from any seed. */
uint64_t fake_random_seed(uint64_t seed);

/* --- fake_content.c; all: 0 or -ENOMEM without effect, where not said otherwise --- */

struct fake_content *fake_content_new(uint32_t id);
/* One more reference. */
struct fake_content *fake_content_ref(struct fake_content *content);
void fake_content_unref(struct fake_content *content);
BASE_DEFINE_FREEP(struct fake_content, fake_content_unref);
/* Same bytes, id and epoch, held by nobody; pieces are shared. */
struct fake_content *fake_content_clone(const struct fake_content *content);
void fake_content_read(const struct fake_content *content, uint64_t offset_bytes, void *to,
		       uint64_t length_bytes);
/* Extends the size where needed. */
int fake_content_write(struct fake_content *content, uint64_t offset_bytes, const void *from,
		       uint64_t length_bytes);
/* Past the size there is nothing to clear.  @free_space: give whole units back. */
int fake_content_clear(struct fake_content *content, uint64_t offset_bytes, uint64_t length_bytes,
		       bool free_space);
/* -EFBIG too long for one call. */
int fake_content_allocate(struct fake_content *content, uint64_t offset_bytes,
			  uint64_t length_bytes);
int fake_content_truncate(struct fake_content *content, uint64_t size_bytes);
/* Units of 4 KiB that a write to the range would take. */
uint64_t fake_content_units_missing(const struct fake_content *content, uint64_t offset_bytes,
				    uint64_t length_bytes);
/* Runs from @offset_bytes to @end_bytes; returns how many were filled in. */
uint32_t fake_content_ranges(const struct fake_content *content, uint64_t offset_bytes,
			     uint64_t end_bytes, struct store_range *ranges, uint32_t capacity);

/* --- names --- */

struct fake_content *fake_names_find(const struct fake_names *names, const char *name);
/* Make @name stand for @content (a reference is taken); NULL: take the name away. */
int fake_names_set(struct fake_names *names, const char *name, struct fake_content *content);
void fake_names_fini(struct fake_names *names);
/* Length of the folder part of a name, without the separator. */
size_t fake_folder_length(const char *name);

/* --- fake_store.c --- */

/* An empty store without a plan. */
struct fake_store *fake_store_make(void);

/* --- fake_store_record.c --- */

enum fake_event_kind {
	FAKE_EVENT_INVALID,
	FAKE_EVENT_BEGIN,
	FAKE_EVENT_END,
	FAKE_EVENT_CREATE,
	FAKE_EVENT_RENAME,
	FAKE_EVENT_REMOVE,
	FAKE_EVENT_SYNC,
	FAKE_EVENT_KINDS
};

/* One thing that happened.  BEGIN and END name an operation, the others carry names. */
struct fake_event {
	enum fake_event_kind kind;
	uint32_t operation;
	uint32_t content;
	char *from; /* CREATE, REMOVE, SYNC: the name */
	char *to;
};

struct fake_operation {
	enum store_op op;
	bool fua;
	bool landed; /* it took effect */
	int result;
	uint32_t content;
	uint64_t offset_bytes;
	uint64_t length_bytes;
	uint64_t begin; /* number of the event */
	uint64_t end;   /* number of the event; UINT64_MAX: not over */
	uint8_t *data;  /* WRITE */
};

struct fake_cursor;

struct fake_recording {
	struct fake_event *events;
	uint64_t event_count;
	size_t event_capacity;
	struct fake_operation *operations;
	uint32_t operation_count;
	size_t operation_capacity;
	bool failed; /* memory ran out: there is no whole record any more */
	/* States of the medium, by event number, ascending; [0] is the start. */
	struct fake_cursor **snapshots;
	uint32_t snapshot_count;
	size_t snapshot_capacity;
	struct fake_cursor *cursor; /* where the last crash was built; NULL: nowhere */
};

/* NULL is fine. */
void fake_recording_free(struct fake_recording *recording);
/* Number of the operation plus one, or 0 when nothing is recorded. */
uint64_t fake_record_begin(struct fake_store *fake, const struct fake_file *file,
			   const struct store_request *request);
void fake_record_end(struct fake_store *fake, uint64_t number, const struct store_request *request,
		     bool landed, int result);
void fake_record_name(struct fake_store *fake, enum fake_event_kind kind, uint32_t content,
		      const char *from, const char *to);
/* Copies what @request writes. */
void fake_gather(const struct store_request *request, uint8_t *to);

/* Room for one more in a growing array of @size_bytes large members; false: no memory. */
bool fake_grow(void *array, size_t size_bytes, size_t count, size_t *capacity);

/* --- fake_store_crash.c --- */

/* The state of the medium before the first event; NULL: no memory. */
struct fake_cursor *fake_cursor_start(const struct fake_store *fake);
void fake_cursor_free(struct fake_cursor *cursor);

#endif
