/* SPDX-License-Identifier: Apache-2.0 */
/* The worker's life: start, run, end. */
#include "agent/vm_worker.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "agent/vm_worker_priv.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

void vm_worker_end(struct vm_worker *worker, enum vm_exit exit_code, const char *why)
{
	if (worker->ending) {
		/* The parent decides by these; they are never hidden by an earlier end. */
		if (exit_code == VM_EXIT_STALE || exit_code == VM_EXIT_MOVED)
			worker->exit_code = exit_code;
		return;
	}
	worker->ending = true;
	worker->exit_code = exit_code;
	base_log(BASE_LOG_NOTICE, "vm.ending", "vm=%s exit=%d why=%s", worker->config->name,
		 (int)exit_code, why);
	if (!worker->loading) /* nobody waits for the guest any more */
		vm_devices_end_waits(worker->devices);
	vm_worker_move_stop(worker);
	vm_worker_disk_move_stop(worker);
	/* What reads a disk that may not be touched would wait for ever. */
	if (worker->disk_moving.under_way && !vm_worker_may_act(worker))
		base_loop_stop(worker->loop);
	/* safety: a move that has asked who is to run the VM ends when it knows, not before; but
	 * who is stale has nothing to decide. */
	if (exit_code == VM_EXIT_STALE || (worker->loading && worker->config->incoming[0] == '\0'))
		base_loop_stop(worker->loop);
	vm_worker_may_stop(worker);
}

void vm_worker_may_stop(struct vm_worker *worker)
{
	if (worker->ending && worker->job_count == 0 && worker->move == NULL &&
	    !worker->disk_moving.under_way)
		base_loop_stop(worker->loop);
}

static void signal_ready(void *context, uint32_t events)
{
	struct vm_worker *worker = context;
	struct signalfd_siginfo info;

	(void)events;
	if (read(worker->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		vm_worker_end(worker, VM_EXIT_DONE, "signal");
}

static void quit_expired(void *context)
{
	vm_worker_end(context, VM_EXIT_DONE, "quit-timeout");
}

/* All threads inherit the mask: the signals come out of the descriptor only. */
static int take_signals(struct vm_worker *worker, struct base_error *err)
{
	struct sigaction ignore = { .sa_handler = SIG_IGN };
	struct sigaction before;
	sigset_t signals;

	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	(void)sigaddset(&signals, SIGQUIT);
	/* A terminal that hangs up; under nohup that is no reason to end. */
	if (sigaction(SIGHUP, NULL, &before) == 0 && before.sa_handler != SIG_IGN)
		(void)sigaddset(&signals, SIGHUP);
	if (sigaction(SIGPIPE, &ignore, NULL) < 0 ||
	    pthread_sigmask(SIG_BLOCK, &signals, NULL) != 0)
		return base_fail(err, -EINVAL, "signals: cannot be set up");
	worker->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (worker->signal_fd < 0)
		return base_fail_errno(err, -errno, "signalfd");
	return 0;
}

static int join_loop(struct vm_worker *worker, struct base_error *err)
{
	int code = base_loop_add(worker->loop, worker->signal_fd, EPOLLIN, signal_ready, worker,
				 &worker->signal_watch, err);

	if (code == 0)
		code = base_loop_timer_new(worker->loop, quit_expired, worker, &worker->quit_timer,
					   err);
	if (code == 0)
		code = base_loop_timer_new(worker->loop, vm_worker_move_look, worker,
					   &worker->move_timer, err);
	if (worker->control != NULL)
		vm_control_on_gone(worker->control, vm_worker_client_gone);
	if (code == 0 && worker->control != NULL)
		code = vm_control_begin(worker->control, worker->loop, err);
	return code;
}

/* Before there are threads, and with the signals blocked: a terminal's interrupt is for us. */
static int start_boot_reader(struct vm_worker *worker, struct base_error *err)
{
	const struct vm_config *config = worker->config;

	if (config->kernel[0] != '\0' || config->disk_count == 0)
		return 0;
	return bootdisk_reader_start(&worker->boot_reader, err);
}

static int start(struct vm_worker *worker, struct base_error *err)
{
	const struct vm_config *config = worker->config;
	int keep[3 + VM_NICS_MAX * VM_NIC_QUEUES_MAX] = { config->kvm_fd, config->leash_page_fd,
							  config->leash_event_fd };
	size_t count = 3;
	int code = 0;

	for (uint32_t i = 0; i < config->nic_count; i++)
		for (uint32_t j = 0; j < config->nics[i].fd_count; j++)
			keep[count++] = config->nics[i].fds[j];
	code = vm_sandbox_begin(keep, count, err);

	if (code == 0)
		code = take_signals(worker, err);
	if (code == 0)
		code = start_boot_reader(worker, err);
	if (code == 0)
		code = base_loop_new(&worker->loop, err);
	if (code == 0)
		code = vm_worker_open(worker, err);
	if (code == 0)
		code = vm_worker_make(worker, err);
	if (code == 0)
		code = vm_worker_lock_down(worker, err);
	if (code == 0)
		code = join_loop(worker, err);
	if (code == 0)
		code = vm_worker_load_begin(worker, err);
	return code;
}

static void log_ready(const struct vm_worker *worker)
{
	struct hv_machine_status status;

	hv_machine_status(worker->machine, &status);
	base_log(BASE_LOG_NOTICE, "vm.ready",
		 "vm=%s pid=%d state=%s memory_bytes=%llu backing=%s vcpus=%u cpu=%s epoch=%llu "
		 "seccomp=%d landlock=%d",
		 worker->config->name, (int)getpid(), status.holds == 0 ? "running" : "held",
		 (unsigned long long)status.memory_bytes, hv_memory_backing_name(status.backing),
		 status.vcpu_count, hv_cpu_model_name(status.cpu),
		 (unsigned long long)worker->epoch, worker->sandbox.seccomp,
		 worker->sandbox.landlock_abi);
	if (worker->swept_count > 0)
		base_log(BASE_LOG_NOTICE, "vm.swept", "vm=%s files=%d", worker->config->name,
			 worker->swept_count);
	if (!status.cpu_honoured)
		base_log(BASE_LOG_WARNING, "vm.cpu-not-honoured", "vm=%s what=%s",
			 worker->config->name, base_log_str(status.cpu_text));
}

/* Stale is what the leash says, never a file on some network. */
static enum vm_exit exit_of(const struct vm_worker *worker, int code)
{
	return code == -ESTALE && worker->leash_refused ? VM_EXIT_STALE : VM_EXIT_FAILED;
}

static int begin_running(struct vm_worker *worker, struct base_error *err)
{
	int code = vm_console_begin(worker->console, worker->loop, &vm_worker_console_ops, worker,
				    err);

	/* One that has come runs already, or stands still as it did where it came from. */
	if (code == 0 && worker->config->start == VM_START_RUNNING && worker->arrival == NULL)
		code = hv_machine_release(worker->machine, HV_HOLD_USER, err);
	worker->announce_waits = worker->restore_fd >= 0 || worker->arrival != NULL;
	vm_worker_running(worker);
	return code;
}

void vm_worker_loaded(struct vm_worker *worker, int code, const struct base_error *err)
{
	worker->loading = false;
	if (worker->ending) /* told to meanwhile: then it must not begin to run */
		return;
	worker->start_err = *err;
	if (code == 0)
		code = begin_running(worker, &worker->start_err);
	if (code < 0) { /* the caller of vm_worker_run() says why, in one line */
		worker->exit_code = exit_of(worker, code);
		worker->ending = true;
		base_loop_stop(worker->loop);
		return;
	}
	worker->running = true;
	log_ready(worker);
	vm_worker_event(worker, "ready", NULL);
}

static int run(struct vm_worker *worker, struct base_error *err)
{
	int code = base_loop_run(worker->loop, err);

	if (code < 0)
		worker->exit_code = VM_EXIT_FAILED;
	if (code < 0 && (worker->running || worker->loading))
		base_log(BASE_LOG_ERR, "vm.failed", "vm=%s why=%s", worker->config->name,
			 base_log_str(err->text));
	if (code == 0 && !worker->running && worker->start_err.code < 0) {
		*err = worker->start_err;
		code = err->code;
	}
	return code;
}

/*
 * Told to end while the machine is being loaded: what reads the file cannot be stopped, and
 * need not be, since it changes nothing but this process's memory.
 */
static _Noreturn void leave(struct vm_worker *worker)
{
	vm_control_free(worker->control);
	vm_console_free(worker->console);
	base_log(BASE_LOG_NOTICE, "vm.ended", "vm=%s exit=%d", worker->config->name,
		 (int)worker->exit_code);
	/* safety: no vCPU has run, and the kernel's timer of the leash ends with the process. */
	_exit((int)worker->exit_code);
}

/* End without touching a disk any more, as if killed, but with the sockets gone. */
static _Noreturn void abandon(struct vm_worker *worker)
{
	vm_control_free(worker->control);
	vm_console_free(worker->console);
	base_log(BASE_LOG_NOTICE, "vm.ended", "vm=%s exit=%d", worker->config->name,
		 (int)worker->exit_code);
	/* safety: no vCPU runs, and the kernel drops the locks on the disks. */
	_exit((int)worker->exit_code);
}

/*
 * No device has a request under way any more, and the disks are somebody else's to take.  A
 * worker whose leash is not held may not write, not even the end of a log.
 */
static void stop_devices(struct vm_worker *worker)
{
	struct base_error err = { 0 };

	if (worker->machine == NULL || !vm_devices_active(worker->devices))
		return;
	if (!vm_worker_may_act(worker))
		abandon(worker);
	hv_machine_end(worker->machine); /* also when it has stopped, and when a disk is stalled */
	if (vm_devices_stop(worker->devices, &err) == 0)
		return;
	base_log(BASE_LOG_ERR, "vm.disks-not-closed", "vm=%s why=%s", worker->config->name,
		 base_log_str(err.text));
	if (worker->exit_code == VM_EXIT_DONE)
		worker->exit_code = VM_EXIT_FAILED;
	abandon(worker);
}

/* The reverse of the start.  vCPUs end first, so that the console's last bytes are there. */
static void release(struct vm_worker *worker)
{
	vm_devices_end_waits(worker->devices);
	base_pool_free(worker->asks);
	base_pool_free(worker->jobs); /* runs what is queued */
	vm_worker_jobs_done(worker);
	vm_worker_move_free(worker);
	if (worker->machine != NULL)
		(void)!hv_machine_hold(worker->machine, HV_HOLD_USER, NULL);
	stop_devices(worker);
	/* safety: the leash goes after the last vCPU stood still and the last disk was handed back,
	 * never before. */
	base_leash_free(worker->leash);
	atomic_store(&worker->leash, NULL);
	hv_machine_free(worker->machine);
	vm_devices_free(worker->devices);
	bootdisk_reader_free(worker->boot_reader);
	if (worker->running)
		vm_console_finish(worker->console);
	vm_control_free(worker->control);
	vm_console_free(worker->console);
	if (worker->loop != NULL) {
		base_loop_timer_free(worker->quit_timer);
		base_loop_remove(worker->signal_watch);
	}
	base_loop_free(worker->loop);
	base_closep(&worker->kernel_fd);
	base_closep(&worker->initrd_fd);
	base_closep(&worker->restore_fd);
	base_closep(&worker->state_dir_fd);
	base_closep(&worker->signal_fd);
	base_closep(&worker->kvm_fd);
	free(worker->own_config);
	(void)pthread_mutex_destroy(&worker->lock);
}

enum vm_exit vm_worker_run(const struct vm_config *config, struct base_error *err)
{
	struct vm_worker worker = {
		.config = config,
		.kvm_fd = -1,
		.kernel_fd = -1,
		.initrd_fd = -1,
		.restore_fd = -1,
		.state_dir_fd = -1,
		.signal_fd = -1,
		.move_state_fd = -1,
		.listen_fd = -1,
		.tls_dir_fd = -1,
		.fault_fd = -1,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.gate = { .lock = PTHREAD_MUTEX_INITIALIZER },
	};
	struct base_error why = { 0 };
	int code = start(&worker, &why);

	if (code == 0)
		code = run(&worker, &why);
	else
		worker.exit_code = exit_of(&worker, code);
	if (worker.loading)
		leave(&worker);
	/* Its move is not over: only who is stale, or may touch no disk, ends like this. */
	if ((worker.move != NULL && worker.exit_code == VM_EXIT_STALE) ||
	    worker.disk_moving.under_way)
		abandon(&worker);
	release(&worker);
	if (code < 0 && !worker.running && err != NULL)
		*err = why;
	else
		base_log(BASE_LOG_NOTICE, "vm.ended", "vm=%s exit=%d", config->name,
			 (int)worker.exit_code);
	return worker.exit_code;
}
