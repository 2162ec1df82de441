/* SPDX-License-Identifier: Apache-2.0 */
/* The worker's start: everything between the configuration and the first instruction. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/vm_worker_priv.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "hypervisor/host_probe.h"

/* A file to read: checked now, so that nothing is made before it is known to be there. */
static int open_input(const char *key, const char *path, int *ret_fd, struct base_error *err)
{
	/* Not blocking: a FIFO must be refused, not waited for. */
	BASE_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat status;

	if (fd < 0 || fstat(fd, &status) < 0) {
		int code = -errno;

		return base_fail(err, code,
				 "key '%s': value '%s': %s: expected a regular file we can read",
				 key, path, strerrordesc_np(-code));
	}
	if (!S_ISREG(status.st_mode))
		return base_fail(err, -EINVAL,
				 "key '%s': value '%s': mode 0%o: expected a regular file", key,
				 path, status.st_mode);
	*ret_fd = base_take_fd(&fd);
	return 0;
}

/* Held to the worker's end: two workers must not go on from one saved state at once. */
static int lock_restore(struct vm_worker *worker, struct base_error *err)
{
	if (worker->restore_fd < 0 || flock(worker->restore_fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	return base_fail(err, errno == EWOULDBLOCK ? -EBUSY : -errno,
			 "key 'restore': value '%s': another worker goes on from it: expected one",
			 worker->config->restore);
}

static int open_state_dir(const char *path, int *ret_fd, struct base_error *err)
{
	BASE_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	/* faccessat() asks as the user, without what capabilities would let pass later, too. */
	if (fd < 0 || faccessat(fd, ".", W_OK | X_OK, 0) < 0) {
		int code = -errno;

		return base_fail(err, code,
				 "key 'state-dir': value '%s': %s: expected a directory we can "
				 "write to",
				 path, strerrordesc_np(-code));
	}
	*ret_fd = base_take_fd(&fd);
	return 0;
}

/* What a worker that was killed in the middle of a save left; now, while we can list. */
static int sweep_state_dir(struct vm_worker *worker, struct base_error *err)
{
	int count = base_new_file_sweep(worker->state_dir_fd, err);

	if (count < 0)
		return base_fail_within(err, count, "key 'state-dir': value '%s'",
					worker->config->state_dir);
	worker->swept_count = count;
	return 0;
}

static int open_kvm(struct vm_worker *worker, struct base_error *err)
{
	int fd =
		worker->config->kvm_fd >= 0 ? worker->config->kvm_fd : hv_kvm_open("/dev/kvm", err);

	if (fd < 0)
		return fd;
	worker->kvm_fd = fd;
	return 0;
}

static int open_files(struct vm_worker *worker, struct base_error *err)
{
	const struct vm_config *config = worker->config;
	const struct {
		const char *key;
		const char *path;
		int *fd;
	} inputs[] = {
		{ "kernel", config->kernel, &worker->kernel_fd },
		{ "initrd", config->initrd, &worker->initrd_fd },
		{ "restore", config->restore, &worker->restore_fd },
	};

	for (size_t i = 0; i < sizeof(inputs) / sizeof(inputs[0]); i++) {
		int code = 0;

		if (inputs[i].path[0] == '\0')
			continue;
		code = open_input(inputs[i].key, inputs[i].path, inputs[i].fd, err);
		if (code < 0)
			return code;
	}
	if (lock_restore(worker, err) < 0)
		return -EBUSY;
	return config->state_dir[0] != '\0'
		       ? open_state_dir(config->state_dir, &worker->state_dir_fd, err)
		       : 0;
}

static void device_news(void *context)
{
	vm_worker_tell(context, VM_NEWS_DEVICE);
}

static int open_devices(struct vm_worker *worker, struct base_error *err)
{
	struct vm_devices_options options = {
		.config = worker->config,
		.boot_reader = worker->boot_reader,
		.may_submit = vm_worker_may_act,
		.news = device_news,
		.context = worker,
	};

	return vm_devices_open(&options, &worker->devices, err);
}

int vm_worker_open(struct vm_worker *worker, struct base_error *err)
{
	const struct vm_config *config = worker->config;
	int code = open_files(worker, err);

	if (code == 0)
		code = hv_memory_check_size(config->memory_bytes, err);
	if (code == 0)
		code = open_kvm(worker, err);
	if (code == 0 && config->control[0] != '\0')
		code = vm_control_new(config->control, vm_worker_commands, vm_worker_command_count,
				      worker, &worker->control, err);
	if (code == 0)
		code = vm_console_new(&config->console, &worker->console, err);
	if (code == 0 && worker->state_dir_fd >= 0)
		code = sweep_state_dir(worker, err);
	if (code == 0)
		code = vm_worker_move_open(worker, err);
	if (code == 0)
		code = open_devices(worker, err);
	return code;
}

int vm_worker_make(struct vm_worker *worker, struct base_error *err)
{
	const struct vm_config *config = worker->config;
	struct hv_machine_config machine = {
		.memory_bytes = config->memory_bytes,
		.backing = config->backing,
		.vcpu_count = (uint32_t)config->vcpu_count,
		.cpu = config->cpu,
		.cpu_strict = config->cpu_strict == VM_SWITCH_ON,
		.test_page = config->test_page == VM_SWITCH_ON,
	};
	/* The machine keeps the pointers' targets: both live in the configuration. */
	struct hv_machine_fds fds = {
		.kvm_fd = worker->kvm_fd,
		.kernel_fd = worker->kernel_fd,
		.initrd_fd = worker->initrd_fd,
		.kernel_name = config->kernel,
		.initrd_name = config->initrd,
	};
	struct base_leash *leash = NULL;
	int code = 0;

	memcpy(machine.name, config->name, sizeof(machine.name));
	memcpy(machine.cmdline, config->cmdline, sizeof(machine.cmdline));
	code = hv_machine_new(&machine, &fds, &vm_worker_machine_ops, worker, &worker->machine,
			      err);
	if (code == 0) {
		code = base_leash_new(config->leash_page_fd, config->leash_event_fd, config->epoch,
				      vm_worker_leash_changed, worker, &leash, err);
		worker->leash_refused = code < 0;
	}
	/* The machine is held until it is loaded: no vCPU has asked for it yet. */
	atomic_store(&worker->leash, leash);
	return code;
}

int vm_worker_lock_down(struct vm_worker *worker, struct base_error *err)
{
	int store_fds[VM_STORES_MAX + VM_DISKS_MAX];
	struct vm_sandbox_spec spec = {
		.state_dir_fd = worker->state_dir_fd,
		.directory_fds = { -1, -1, -1, -1 },
		.store_fds = store_fds,
		.boot_reader = worker->boot_reader != NULL,
		.migrate = worker->config->migrate == VM_SWITCH_ON,
		.tls_dir_fd = worker->tls_dir_fd,
	};

	if (worker->config->sandbox == VM_SWITCH_OFF) {
		base_log(BASE_LOG_WARNING, "vm.sandbox-off", "vm=%s", worker->config->name);
		return 0;
	}
	if (worker->control != NULL)
		spec.directory_fds[0] = vm_control_directory_fd(worker->control);
	while (vm_devices_store_fd(worker->devices, (uint32_t)spec.store_count) >= 0) {
		store_fds[spec.store_count] =
			vm_devices_store_fd(worker->devices, (uint32_t)spec.store_count);
		spec.store_count++;
	}
	spec.directory_fds[1] = vm_console_directory_fd(worker->console);
	return vm_sandbox_enter(&spec, &worker->sandbox, err);
}

int vm_worker_load_begin(struct vm_worker *worker, struct base_error *err)
{
	/* The job thread is made after the lock-down, and so is under Landlock, too. */
	int code = base_pool_new(1, "job", &worker->jobs, err);

	if (code == 0)
		code = base_pool_new(VM_ASK_THREADS, "ask", &worker->asks, err);
	if (code < 0)
		return code;
	hv_machine_status(worker->machine, &worker->loading_status);
	code = vm_worker_job(worker, &vm_job_load, NULL, NULL, err);
	if (code == 0)
		worker->loading = true;
	return code;
}

int vm_worker_load(struct vm_worker *worker, struct base_error *err)
{
	const struct vm_config *config = worker->config;
	bool comes = worker->restore_fd >= 0 || worker->listen_fd >= 0;
	int code = vm_devices_make(worker->devices, worker->machine, comes, err);

	if (code < 0)
		return code;
	if (worker->listen_fd >= 0)
		return vm_worker_arrive(worker, err);
	if (worker->restore_fd < 0)
		return hv_machine_boot(worker->machine, err);
	code = hv_machine_restore(worker->machine, worker->restore_fd,
				  config->restore_force_tsc == VM_SWITCH_ON, err);
	if (code < 0)
		return base_fail_within(err, code, "key 'restore': value '%s'", config->restore);
	/* The saved machine's devices have done that, unless it had none. */
	return vm_devices_activate(worker->devices, err);
}
