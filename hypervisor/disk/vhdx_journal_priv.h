/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What vhdx_pages.c, vhdx_journal*.c and vhdx_space*.c know of each other.  Loop only.
 *
 * The content of a page passes through up to four buffers, each older than the one before:
 *
 *   data      what requests see and change
 *   snapshot  taken by the commit under way; becomes logged when its entry is durable, or
 *             dirty again when the commit fails
 *   logged    held by a durable log entry (logged_in), home not written yet
 *   homing    held by a durable log entry (homing_in), the write home is under way
 *
 * A page with any of the last three, a dirty one or a pinned one stays in memory, so a page that
 * is read again from its home finds there what the log said last.
 *
 * docs/hypervisor/disk/vhdx-journal.md has the states, the orders and why they are safe.
 */
#ifndef HYPERVISOR_DISK_VHDX_JOURNAL_PRIV_H
#define HYPERVISOR_DISK_VHDX_JOURNAL_PRIV_H

#include "hypervisor/disk/vhdx_priv.h"

#define VHDX_HOMES_MAX       64U             /* home writes in flight */
#define VHDX_STEP_BYTES      (64 * VHDX_MIB) /* the file grows by this much at most beyond need */
/* Larger files are only extended: the map of a file of this size takes 32 MiB. */
#define VHDX_SPACE_UNITS_MAX (1ULL << 28)

/* --- waiters --- */

/* At the end: first come, first served. */
void vhdx_waiters_add(struct vhdx_waiter **list, struct vhdx_waiter *waiter);
/* Run all of @*list, which is empty before the first one runs.  From a completion or a task. */
void vhdx_waiters_run(struct vhdx_waiter **list, int result);

/* --- pages --- */

struct vhdx_slab;
struct vhdx_pages {
	struct vhdx *vhdx;
	struct vhdx_page **buckets;
	uint32_t count;
	struct vhdx_page *idle_oldest, *idle_newest;
	uint32_t idle_count;
	struct vhdx_page *dirty_first, **dirty_end;
	uint32_t dirty_count;
	struct vhdx_slab *slabs;
	uint8_t *free_buffers; /* each begins with the address of the next */
};

/* Page buffers, aligned to their size, from a pool that lives as long as the pages do. */
uint8_t *vhdx_buffer_take(struct vhdx_pages *pages);
void vhdx_buffer_give(struct vhdx_pages *pages, uint8_t *buffer); /* NULL is fine */
/* The page at @offset_bytes when it is in memory and loaded; not pinned; or NULL. */
struct vhdx_page *vhdx_page_peek(const struct vhdx *vhdx, uint64_t offset_bytes);
/* Nothing keeps @page any more: it may be dropped when others need the room. */
void vhdx_page_settle(struct vhdx_page *page);

/* --- journal --- */

/*
 * An entry of the log from the durable tail on.  Its sequence number and place stay reserved
 * while it is in the list.
 */
struct vhdx_log_live {
	struct vhdx_log_live *next; /* newer */
	uint64_t sequence;
	uint32_t at_bytes; /* in the log */
	uint32_t length_bytes;
	uint32_t needed;     /* page contents that are not durable at home: the sum of what follows,
				and of those homing */
	uint32_t unhomed;    /* the write home has not begun */
	uint32_t homed;      /* it is over; no flush has begun since */
	uint32_t flushing;   /* a flush that will make it durable is under way */
	uint32_t superseded; /* those that the entry being written holds anew */
	uint32_t page_count;
	uint64_t offsets[]; /* of the pages */
};

typedef void (*vhdx_journal_step)(struct vhdx_journal *journal, int result);

struct vhdx_journal {
	struct vhdx *vhdx;

	/* One operation at a time: a commit, a header update or the end. */
	bool busy;
	bool ended;
	struct base_io_task kick;
	bool kick_posted;

	/* The log. */
	struct disk_guid log; /* of this session */
	bool log_begun;       /* the first entry is durable */
	uint64_t next_sequence;
	uint32_t log_bytes;
	uint32_t head_bytes; /* in the log: where the next entry goes */
	uint32_t live_bytes;
	struct vhdx_log_live *live_oldest, *live_newest;
	uint32_t crowd_pages; /* dirty pages at which changes have to wait */

	/* The entry under way, not in the list before it is durable. */
	struct vhdx_log_live *entry;
	uint64_t entry_tail_sequence;
	struct vhdx_page **entry_pages;
	uint8_t *buffer; /* aligned to 4 KiB */
	size_t buffer_bytes;
	struct store_request write[2]; /* two when it wraps around the log's end */
	struct iovec write_iov[2];
	uint32_t writes_pending;
	int write_result;
	vhdx_journal_step write_next;

	/* Flushes and header writes of the operation under way. */
	struct store_request flush;
	vhdx_journal_step flush_next;
	struct store_request header_write;
	struct iovec header_iov;
	uint8_t *header_buffer;
	struct vhdx_header new_header;
	vhdx_journal_step header_next;

	/* Commits. */
	bool commit_wanted;
	bool reclaimed; /* the commit under way has emptied the log already */
	bool ordered;   /* the commit under way */
	uint64_t commit_next;
	uint64_t commit_number; /* the one under way */
	uint64_t commit_durable;
	struct vhdx_waiter *commit_waiters; /* for the next */
	struct vhdx_waiter *commit_running; /* for the one under way */
	struct base_io_timer timer;

	/* Home writes. */
	bool homes_wanted;
	uint32_t homes_in_flight;
	uint32_t homed_count;    /* the sum of homed over all entries */
	uint32_t flushing_count; /* the sum of flushing */
	int homes_result;
	vhdx_journal_step homes_next; /* who waits until all are over */

	/* Header updates. */
	bool touched;
	bool data_touched;
	bool touch_wanted, touch_data; /* asked for */
	bool id_wanted;
	struct disk_guid id;
	bool running_data, running_id;     /* what the update under way is for */
	struct vhdx_waiter *touch_waiters; /* for the next update */
	struct vhdx_waiter *touch_running;
	bool new_header_data; /* the update under way changes the DataWriteGuid */

	/* The end. */
	bool end_wanted;
	int end_result;
	bool end_done;
	bool end_parked; /* until the task that was posted has run */
	struct vhdx_waiter end_waiter;
	struct store_request cut;
	uint64_t cut_bytes;
};

/* Look for the next operation, in a task of its own. */
void vhdx_journal_kick(struct vhdx_journal *journal);
/* The operation under way is over. */
void vhdx_journal_idle(struct vhdx_journal *journal);
/* The first page became dirty, or one more did. */
void vhdx_journal_dirtied(struct vhdx *vhdx);
/* @page is dropped with content that is logged and not home. */
void vhdx_journal_forget(struct vhdx_page *page);
/* Mark the image as failed where @result says that what is on the medium is unknown. */
int vhdx_journal_outcome(struct vhdx *vhdx, int result, const char *what);

/* vhdx_journal_log.c */
bool vhdx_log_fits(const struct vhdx_journal *journal, uint32_t page_count);
/* Room in memory for an entry of @page_count pages. -ENOMEM. */
int vhdx_log_prepare(struct vhdx_journal *journal, uint32_t page_count);
/* Encode the snapshots of @entry_pages and write the entry at the head. */
void vhdx_log_write(struct vhdx_journal *journal, vhdx_journal_step next);
/* The entry is durable: it joins the list, and what is before its tail leaves. */
void vhdx_log_adopt(struct vhdx_journal *journal);
/* It is not: its pages are dirty again. */
void vhdx_log_abandon(struct vhdx_journal *journal);
void vhdx_log_flush(struct vhdx_journal *journal, vhdx_journal_step next);
/* Newest entry of the list, or the one under way, that holds a page of the range; 0: none. */
uint64_t vhdx_log_newest_over(const struct vhdx *vhdx, uint64_t offset_bytes,
			      uint64_t length_bytes);
/* Sequence number of the oldest entry that a replay would apply; UINT64_MAX without a log. */
uint64_t vhdx_log_oldest(const struct vhdx *vhdx);
void vhdx_log_free(struct vhdx_journal *journal);

/* vhdx_journal_home.c */
/* Begin to write home what is logged; @next may be NULL, else it runs when all are over. */
void vhdx_homes_start(struct vhdx_journal *journal, vhdx_journal_step next);
void vhdx_homes_flush_begin(struct vhdx_journal *journal);
void vhdx_homes_flush_end(struct vhdx_journal *journal);

/* vhdx_journal_header.c */
void vhdx_touch_begin(struct vhdx_journal *journal);
/* Write @new_header to the slot that is not current, flush, and make it the current one. */
void vhdx_header_update(struct vhdx_journal *journal, vhdx_journal_step next);

/* vhdx_journal_end.c */
void vhdx_end_begin(struct vhdx_journal *journal);
/* Tell the end, once nothing is in flight; @result is not looked at. */
void vhdx_end_quiet(struct vhdx_journal *journal, int result);

/* --- space --- */

/* Taken out of use; free once commit @commit is durable and no entry up to @sequence can be
 * replayed any more. */
struct vhdx_space_freed {
	struct vhdx_space_freed *next;
	uint64_t offset_bytes;
	uint64_t length_bytes;
	uint64_t commit; /* 0: durable */
	uint64_t sequence;
};

enum vhdx_scan {
	VHDX_SCAN_INVALID,
	VHDX_SCAN_NOT_BEGUN,
	VHDX_SCAN_RUNNING,
	VHDX_SCAN_KNOWN,
	VHDX_SCAN_FAILED,
	VHDX_SCANS
};

struct vhdx_space {
	struct vhdx *vhdx;
	uint64_t begin_bytes; /* the file's end at activation, in whole MiB */
	uint64_t end_bytes;   /* from here on nothing was ever handed out: reads zero */
	uint64_t flushed_bytes;
	uint64_t flushing_bytes;

	uint64_t *used; /* a bit per MiB below @end_bytes; NULL before the first use */
	uint64_t unit_capacity;
	uint64_t next_unit;  /* where the next search begins */
	uint64_t hopeless;   /* no free run of this many units, unless something was freed */
	bool no_reuse;       /* nobody can say what is free: only fresh space is given */
	uint64_t bad_offset; /* lowest offset behind the file that a table names */
	struct vhdx_space_freed *freed;

	/* Extending the file. */
	struct store_request extend;
	uint64_t extend_bytes; /* the size asked for; 0: not under way */
	uint64_t extend_need;  /* the size that would do */
	struct vhdx_waiter *extend_waiters;

	/* The scan. */
	enum vhdx_scan scan;
	bool scan_stop;
	uint64_t scan_done;       /* bytes of the BAT */
	uint64_t scan_bat_offset; /* the BAT that it reads */
	uint64_t scan_entries;
	uint8_t *scan_buffer;
	struct store_request scan_read;
	struct iovec scan_iov;
	struct vhdx_waiter *scan_waiters;
};

/* vhdx_space_units.c */
int vhdx_units_grow(struct vhdx_space *space, uint64_t end_bytes); /* -ENOMEM, -EFBIG */
bool vhdx_units_any(const struct vhdx_space *space, uint64_t offset_bytes, uint64_t length_bytes);
void vhdx_units_mark(struct vhdx_space *space, uint64_t offset_bytes, uint64_t length_bytes);
void vhdx_units_clear(struct vhdx_space *space, uint64_t offset_bytes, uint64_t length_bytes);
/* A free run of @units at @from or behind, before @limit; UINT64_MAX when there is none. */
uint64_t vhdx_units_find(const struct vhdx_space *space, uint64_t from, uint64_t limit,
			 uint64_t units);
uint64_t vhdx_units_end(const struct vhdx_space *space); /* bytes */

/* vhdx_space.c: entries have left the log, or the scan is over. */
void vhdx_space_settle(struct vhdx *vhdx);
/* vhdx_space_scan.c: begin, unless it has begun.  0 or -ENOMEM. */
int vhdx_scan_begin(struct vhdx_space *space);
/* The entry at @index of the BAT was changed now, and the place that it named is released. */
void vhdx_scan_freed(struct vhdx_space *space, uint64_t index, uint64_t offset_bytes,
		     uint64_t length_bytes);
/* Stop reading: 0, or -EINPROGRESS and @waiter runs when nothing is in flight. */
int vhdx_scan_halt(struct vhdx_space *space, struct vhdx_waiter *waiter);
/* What the file may be cut to at the end of a session; the file's size when nothing is sure. */
uint64_t vhdx_space_cut_bytes(const struct vhdx *vhdx);

#endif
