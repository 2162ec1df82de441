/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker object, for the files that make it up: vm_worker.c (life), _start.c (opening),
 * _jobs.c (changes of the machine), _checkpoint.c, _events.c (what machine and leash report),
 * _move.c (migrations), _storage.c (disks that move), _images.c (what a dead worker left),
 * _commands.c (the table of commands), _status.c (what it tells).
 *
 * Owned by the loop's thread but for what says otherwise.
 */
#ifndef AGENT_VM_WORKER_PRIV_H
#define AGENT_VM_WORKER_PRIV_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/vm_config.h"
#include "agent/vm_console.h"
#include "agent/vm_control.h"
#include "agent/vm_devices.h"
#include "agent/vm_devices_storage.h"
#include "agent/vm_exit.h"
#include "agent/vm_migrate.h"
#include "agent/vm_sandbox.h"
#include "base/leash.h"
#include "base/loop.h"
#include "base/pool.h"
#include "hypervisor/bootdisk/bootdisk_reader.h"
#include "hypervisor/machine.h"

/* What other threads have to tell the loop; any of them at once. */
enum vm_news {
	VM_NEWS_JOB = 1 << 0,  /* a job has ended */
	VM_NEWS_ROOM = 1 << 1, /* the guest takes console input again */
	VM_NEWS_POWER_OFF = 1 << 2,
	VM_NEWS_RESET = 1 << 3,
	VM_NEWS_CRASHED = 1 << 4,
	VM_NEWS_FROZEN = 1 << 5,
	VM_NEWS_THAWED = 1 << 6,
	VM_NEWS_STALE = 1 << 7,
	VM_NEWS_DEVICE = 1 << 8,   /* vm_devices_event() */
	VM_NEWS_STORAGE = 1 << 10, /* the move of a disk has ended */
	VM_NEWS_MOVE = 1 << 9,     /* a migration has held or released the VM, or has ended */
};

struct vm_worker;

/* One change of the machine, carried out on the job thread, in order; or, with @asks_guest, a wait
 * for the guest, on a thread of those beside it, in no order. */
struct vm_job {
	struct vm_worker *worker;
	struct vm_job *next;
	bool asks_guest;
	int (*run)(struct vm_job *job, struct base_error *err); /* job thread, or an asking one */
	void (*done)(struct vm_job *job,
		     json_t **ret_result); /* loop thread; code and err are set */
	bool has_call;                     /* somebody waits for the answer */
	struct vm_call call;
	struct vm_request request; /* the command's arguments */
	int code;
	struct base_error err;
	uint64_t value;               /* what run() found out */
	struct hv_save_report report; /* likewise, of a save */
	struct vm_disk_config disk;   /* disk-add: what is added */
	json_t *result;               /* of the devices' commands: for the answer */
};

/* A checkpoint under way.  Of the loop's thread, and of the job of it that runs. */
struct vm_checkpoint {
	bool under_way;
	bool gone; /* who asked for it is */
	struct vm_call call;
	char label[VM_CONTROL_TEXT_BYTES];
	json_t *disks; /* that have their new image */
	int frozen;    /* 0: the guest was all the time; else why not */
	struct base_error why;
	int code; /* of the disks */
	struct base_error err;
};

/* A disk on its way to another folder.  Of the loop's thread; of the begin job and then of the
 * thread while they run: move, report, code and err. */
struct vm_disk_moving {
	bool under_way;
	struct vm_call call; /* who asked for it */
	uint32_t controller;
	uint32_t lun;
	bool keep;
	uint64_t begin_ns;
	struct vm_disk_move *move; /* NULL: not looked at yet */
	pthread_t thread;
	struct vm_storage_view view;
	struct vm_storage_move_report report;
	int code;
	struct base_error err;
	atomic_bool over; /* the thread has nothing more to do */
};

struct vm_worker {
	const struct vm_config *config;
	struct vm_config
		*own_config; /* @config, where a disk is elsewhere; NULL: as it was given */

	/* Opened at the start; -1 for what was not asked for. */
	int kvm_fd;
	int kernel_fd;
	int initrd_fd;
	bool leash_refused; /* the start failed at the leash */
	int restore_fd;
	int state_dir_fd;
	int signal_fd;
	int move_state_fd;             /* a file in memory, for the device state of a move */
	int listen_fd;                 /* where a move comes to */
	int more_fds[MIG_IN_MORE_MAX]; /* likewise, on other networks */
	uint32_t more_count;
	int tls_dir_fd;  /* certificates for moves */
	int fault_fd;    /* for pages that come after it */
	int swept_count; /* files that killed saves left in the state directory */

	struct base_loop *loop;
	struct base_loop_fd *signal_watch;
	struct base_loop_timer *quit_timer;
	struct base_pool *jobs; /* one thread */
	struct base_pool *asks; /* VM_ASK_THREADS */
	struct hv_machine *machine;
	struct vm_devices *devices;
	struct bootdisk_reader *boot_reader; /* NULL: the kernel is not on a disk */
	struct base_leash *_Atomic leash;    /* vCPUs and saves ask it; NULL until it is there */
	struct vm_console *console;
	struct vm_control *control; /* NULL when not asked for */
	struct vm_sandbox_facts sandbox;

	/* From the first turn of the loop until the kernel or saved state is loaded. */
	bool loading;
	struct hv_machine_status loading_status; /* what status tells meanwhile */
	struct base_error start_err;             /* why it came to nothing */
	bool running; /* "ready" was said: failures are logged from then on */
	bool saving;
	bool announce_waits; /* restored: the network is told where the guest is once it runs */
	bool reset_waits;    /* the guest asked for a reset while a job was under way */
	bool quit_waits;     /* likewise the command quit, while a state was being saved */
	bool ending;
	enum vm_exit exit_code;
	uint32_t job_count; /* begun, not done */
	struct vm_checkpoint checkpoint;
	struct vm_disk_moving disk_moving;
	uint64_t epoch; /* that the VM runs at: the configuration's, or what a move came at */

	/* Migrations. */
	char host[HV_NAME_BYTES];
	struct mig_records *records; /* NULL: no state directory */
	struct mig_host *host_moves; /* NULL: no limits, no cap of the host */
	struct vm_move *move;        /* away from here, until its end is told */
	struct vm_move_gate gate;    /* of moves away */
	struct vm_call move_call;    /* who asked for it */
	uint32_t move_round;         /* that subscribers have heard of */
	uint64_t move_round_ns;      /* when it was looked for news for them */
	struct vm_watch *watch;      /* of that move, or of the last one; NULL: none was */
	uint32_t watcher_count;
	struct vm_call watchers[VM_CONTROL_CLIENTS_MAX]; /* wait for the end of a move */
	struct base_loop_timer *move_timer;
	struct vm_move *arrival;   /* to here; set under lock by the job that waits for it */
	bool arrival_unwanted;     /* under lock */
	enum vm_exit arrival_exit; /* under lock: how this worker ends, if it is */

	atomic_uint news; /* enum vm_news; any thread */

	pthread_mutex_t lock; /* a leaf: done_first, done_last, crash_text, arrival; any thread */
	struct vm_job *done_first;
	struct vm_job *done_last;
	char crash_text[256];
};

/* --- vm_worker.c --- */

/* End the run, with the first reason that was given, as soon as no job is under way; at
 * once while the machine is being loaded: there is nothing to finish. */
void vm_worker_end(struct vm_worker *worker, enum vm_exit exit_code, const char *why);
/* Nothing is under way any more that an end waits for: then the loop stops. */
void vm_worker_may_stop(struct vm_worker *worker);
/* The first job has ended with @code: the guest runs from here, or the start has failed. */
void vm_worker_loaded(struct vm_worker *worker, int code, const struct base_error *err);

/* --- vm_worker_start.c --- */

/* Steps of the start, in this order.  What they made is released by vm_worker.c. */
BASE_MUST_CHECK int vm_worker_open(struct vm_worker *worker, struct base_error *err);
BASE_MUST_CHECK int vm_worker_make(struct vm_worker *worker, struct base_error *err);
BASE_MUST_CHECK int vm_worker_lock_down(struct vm_worker *worker, struct base_error *err);
BASE_MUST_CHECK int vm_worker_load_begin(struct vm_worker *worker, struct base_error *err);
/* Job thread: boot or restore. */
BASE_MUST_CHECK int vm_worker_load(struct vm_worker *worker, struct base_error *err);

/* --- vm_worker_jobs.c --- */

/* @call, @request: NULL when nobody asked.  -EAGAIN too many jobs, or the machine is being
 * loaded or saved; -EPROTO the worker is ending. */
BASE_MUST_CHECK int vm_worker_job(struct vm_worker *worker, const struct vm_job *job,
				  const struct vm_call *call, const struct vm_request *request,
				  struct base_error *err);
/* News VM_NEWS_JOB has come. */
void vm_worker_jobs_done(struct vm_worker *worker);

/* The jobs there are. */
extern const struct vm_job vm_job_load;
extern const struct vm_job vm_job_pause;
extern const struct vm_job vm_job_resume;
extern const struct vm_job vm_job_save;
extern const struct vm_job vm_job_reset;
extern const struct vm_job vm_job_power_button;
extern const struct vm_job vm_job_test_get;
extern const struct vm_job vm_job_test_set;

/* --- vm_worker_devices.c --- */

extern const struct vm_job vm_job_devices;
extern const struct vm_job vm_job_dump;
extern const struct vm_job vm_job_disk_add;
extern const struct vm_job vm_job_disk_remove;
extern const struct vm_job vm_job_medium;
extern const struct vm_job vm_job_disk_resize;
extern const struct vm_job vm_job_link;
/* News VM_NEWS_DEVICE has come. */
void vm_worker_device_news(struct vm_worker *worker);

/* --- vm_worker_guest.c --- */

extern const struct vm_job vm_job_guest;
extern const struct vm_job vm_job_shutdown;
extern const struct vm_job vm_job_time_sync;
/* Holds have changed: the guest's silence counts, or does not.  Loop thread, so that what is told
 * last is true; waits for nobody. */
void vm_worker_running(struct vm_worker *worker);

/* --- vm_worker_images.c --- */

/* Before the lock-down and before a disk is opened; there is a state directory.  -EPROTO, -EBADMSG
 * nobody can say which image is a disk. */
BASE_MUST_CHECK int vm_worker_images_look(struct vm_worker *worker, struct base_error *err);

/* --- vm_worker_storage.c --- */

/* VM_CALL_LATER, or why not. */
BASE_MUST_CHECK int vm_worker_disk_move(struct vm_worker *worker, const struct vm_call *call,
					const struct vm_request *request, struct base_error *err);
BASE_MUST_CHECK int vm_worker_disk_move_cancel(struct vm_worker *worker, struct base_error *err);
json_t *vm_worker_disk_move_status(struct vm_worker *worker); /* NULL: no memory */
/* -EAGAIN while a disk is being moved: @command would change what moves. */
BASE_MUST_CHECK int vm_worker_refuse_disk_move(const struct vm_worker *worker, const char *command,
					       struct base_error *err);
/* The worker is ending: it is given up unless it has moved. */
void vm_worker_disk_move_stop(struct vm_worker *worker);
/* News VM_NEWS_STORAGE has come. */
void vm_worker_disk_move_news(struct vm_worker *worker);

/* --- vm_worker_checkpoint.c --- */

/* VM_CALL_LATER; -EBUSY one is under way; errors of vm_worker_job(). */
BASE_MUST_CHECK int vm_worker_checkpoint(struct vm_worker *worker, const struct vm_call *call,
					 const struct vm_request *request, struct base_error *err);
/* vm_control_on_gone(); context: the worker. */
void vm_worker_client_gone(void *context, const struct vm_call *call);

/* --- vm_worker_events.c --- */

extern const struct hv_machine_ops vm_worker_machine_ops; /* context: the worker */
extern const struct vm_console_ops vm_worker_console_ops; /* context: the worker */
/* The leash's callback; context: the worker. */
void vm_worker_leash_changed(void *context, enum base_leash_state state);
/* Any thread: set a bit of news and wake the loop. */
void vm_worker_tell(struct vm_worker *worker, enum vm_news news);
/* An event to the subscribers.  @fields is taken, may be NULL. */
void vm_worker_event(struct vm_worker *worker, const char *event, json_t *fields);

/* Any thread: may a disk or a network card act?  context: the worker. */
bool vm_worker_may_act(void *context);

/* Half a machine is left: say so, and end. */
void vm_worker_reset_failed(struct vm_worker *worker, const char *by, const struct base_error *err);

/* --- vm_worker_move.c --- */

/* Before the lock-down: records, what a move needs, where one comes to.  Errors of
 * mig_records_may_start(). */
BASE_MUST_CHECK int vm_worker_move_open(struct vm_worker *worker, struct base_error *err);
void vm_worker_move_free(struct vm_worker *worker);
/* Job thread: wait for the VM to come; 0 when it runs here. */
BASE_MUST_CHECK int vm_worker_arrive(struct vm_worker *worker, struct base_error *err);
/* VM_CALL_LATER, or why not. */
BASE_MUST_CHECK int vm_worker_migrate(struct vm_worker *worker, const struct vm_call *call,
				      const struct vm_request *request, struct base_error *err);
BASE_MUST_CHECK int vm_worker_migrate_cancel(struct vm_worker *worker, struct base_error *err);
BASE_MUST_CHECK int vm_worker_migrate_post(struct vm_worker *worker, struct base_error *err);
json_t *vm_worker_migrate_status(struct vm_worker *worker); /* NULL: no memory */
/* -EAGAIN while the VM is being moved: @command would change what moves. */
BASE_MUST_CHECK int vm_worker_refuse_moving(const struct vm_worker *worker, const char *command,
					    struct base_error *err);
/* The worker is ending: no move goes on that can be stopped. */
void vm_worker_move_stop(struct vm_worker *worker);
void vm_worker_move_look(void *context); /* the timer's */
/* News VM_NEWS_MOVE has come. */
void vm_worker_move_news(struct vm_worker *worker);

/* --- vm_worker_timeline.c --- */

/* A move begins: it is watched from now on, as far as there is memory. */
void vm_worker_watch_begin(struct vm_worker *worker, const char *to);
/* Look at it; returns when to look again. */
uint64_t vm_worker_watch_look(struct vm_worker *worker);
/* It is over: @report is borrowed.  Who waits is answered. */
void vm_worker_watch_end(struct vm_worker *worker, json_t *report);
void vm_worker_watch_gone(struct vm_worker *worker, const struct vm_call *call); /* a client */
void vm_worker_watch_free(struct vm_worker *worker);
/* The command: *ret_result, VM_CALL_LATER where it is waited for, or why not. */
BASE_MUST_CHECK int vm_worker_timeline(struct vm_worker *worker, const struct vm_call *call,
				       bool wait, json_t **ret_result, struct base_error *err);

/* --- vm_worker_commands.c --- */

extern const struct vm_command vm_worker_commands[];
extern const size_t vm_worker_command_count;
/* Press the power button and set the limit, or end at once; -EAGAIN too many jobs. */
BASE_MUST_CHECK int vm_worker_quit(struct vm_worker *worker, struct base_error *err);

/* --- vm_worker_status.c --- */

json_t *vm_worker_status_json(struct vm_worker *worker);

#endif
