/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One side of a migration as a process that a test may kill, stop and starve: tests/fault/faults.py
 * drives it, docs/tests/faults.md has what it says.
 *
 *	fault_host source|destination FOLDER WITNESS PORT TIMEOUT_MS [KEY=VALUE...]
 *	fault_host boot FOLDER WITNESS
 *
 * Keys: create=1 (a new image), step=NAME:SKIP, rule=... (fault_net.h), lose-before=N,
 * lose-after=N, give-up=MS, tls=FOLDER (of certificates; without it clear text), peer=NAME (that
 *the other side has to have; else source or destination), post=1 (by post-copy).  Lines on standard
 *input: move, go, cut, heal, cancel, nomem N, status, stop.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/vm_migrate_net.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "migrate/mig_faults.h"
#include "migrate/mig_in.h"
#include "migrate/mig_out.h"
#include "tests/fault/fault_net.h"
#include "tests/fault/fault_step.h"
#include "tests/fault/fault_vm.h"
#include "tests/support/alloc_fail.h"

#define RETRY_MS   40u
#define LINGER_MS  2000u
#define CHANNELS   2u
#define EXIT_MOVED 7

static struct {
	struct fault_vm vm;
	uint16_t port;
	uint32_t timeout_ms;
	uint32_t resume_ms;
	uint32_t give_up_ms;
	bool create;
	bool post;
	int fault_fd;
	char step[40];
	char tls_folder[256]; /* "": clear text */
	char tls_peer[64];
	struct mig_tls *tls;
	struct mig_out *out;
	struct mig_in *in;
	struct mig_arbiter arbiter;
	int listen_fd;
	struct mig_findings findings;
	pthread_t thread;
	bool has_thread;
} host = { .listen_fd = -1 };

/* --- the sessions --- */

static void say_running(void)
{
	fault_say("running %" PRIu64, host.vm.epoch);
}

static void *move_out(void *context)
{
	static const char *const names[MIG_OUT_ENDS] = {
		[MIG_OUT_MOVED] = "moved",
		[MIG_OUT_CANCELLED] = "cancelled",
		[MIG_OUT_FAILED] = "failed",
		[MIG_OUT_STALE] = "stale",
	};
	struct base_error err = { 0 };
	enum mig_out_end end = mig_out_run(host.out, &host.findings, &err);
	struct base_error why = { 0 };

	(void)context;
	fault_net_settle();
	if (end == MIG_OUT_MOVED && vm_migrate_out_discard(host.vm.images_out, false, &why) < 0)
		fault_say("old image: %s", why.text);
	fault_say("end %s: %s", names[end], err.text);
	for (uint32_t i = 0; i < host.findings.count; i++)
		fault_say("finding %s", host.findings.lines[i]);
	if (end == MIG_OUT_MOVED || end == MIG_OUT_STALE)
		_exit(EXIT_MOVED);
	say_running();
	return NULL;
}

/* NULL: clear text. */
static struct mig_tls *make_tls(bool is_source)
{
	const char *peer = host.tls_peer[0] != '\0' ? host.tls_peer
			   : is_source              ? "destination"
						    : "source";
	struct mig_tls_options options = { .is_source = is_source,
					   .peers = &peer,
					   .peer_count = 1 };
	struct mig_tls *tls = NULL;
	struct base_error err = { 0 };
	BASE_CLOSE int fd = -1;

	if (host.tls_folder[0] == '\0')
		return NULL;
	fd = open(host.tls_folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	options.directory_fd = fd;
	if (mig_tls_new(&options, &tls, &err) < 0)
		base_bug("%s", err.text);
	return tls;
}

static void begin_out(void)
{
	struct mig_out_options options = {
		.vm = &fault_source,
		.vm_context = &host.vm,
		.connect = fault_net_connect,
		.epoch = host.vm.epoch,
		.channel_count = CHANNELS,
		.timeout_ms = host.timeout_ms,
		.retry_ms = RETRY_MS,
		.resume_ms = host.resume_ms,
		.pace = { .downtime_goal_ns = 200 * BASE_NS_PER_MS,
			  .time_limit_ns = 2 * BASE_NS_PER_SECOND },
	};
	struct base_error err = { 0 };

	if (host.post)
		options.pace = (struct mig_pace_options){ .downtime_goal_ns = 1,
							  .time_limit_ns = 1,
							  .late = MIG_LATE_POSTCOPY };
	options.tls = host.tls = make_tls(true);
	base_random_bytes(host.vm.id, sizeof(host.vm.id));
	fault_net_init(host.port, host.timeout_ms);
	if (mig_keep_init(&host.vm.keep, host.vm.records, FAULT_NAME, host.vm.peer, host.vm.id,
			  &err) < 0 ||
	    mig_out_new(&options, &host.out, &err) < 0 ||
	    base_thread_start(&host.thread, "migrate", move_out, NULL, &err) < 0)
		base_bug("%s", err.text);
	host.has_thread = true;
}

static void *move_in(void *context)
{
	struct base_error err = { 0 };
	uint64_t epoch = 0;
	enum mig_in_end end = mig_in_run(host.in, &epoch, &err);

	(void)context;
	if (end == MIG_IN_RUNNING)
		say_running();
	else
		fault_say("end gone: %s", err.text);
	mig_in_fill(host.in);
	if (end == MIG_IN_RUNNING && mig_in_is_broken(host.in)) {
		fault_say("broken");
		_exit(4);
	}
	mig_in_linger(host.in, LINGER_MS);
	fault_say("lingered");
	if (end != MIG_IN_RUNNING)
		_exit(1);
	return NULL;
}

static void begin_in(void)
{
	struct mig_in_options options = {
		.vm = &fault_destination,
		.vm_context = &host.vm,
		.arbiter = &host.arbiter,
		.keeps_register = true,
		.timeout_ms = host.timeout_ms,
		.retry_ms = RETRY_MS,
		.give_up_ms = host.give_up_ms,
		.resume_ms = host.resume_ms,
	};
	char text[VM_ADDRESS_BYTES];
	struct vm_address address;
	struct base_error err = { 0 };

	if (host.post && mig_faults_open(&host.fault_fd, &err) < 0)
		base_bug("%s", err.text);
	options.post = host.post;
	options.fault_fd = host.fault_fd;
	options.memory_fd = host.vm.guest.memory_fd;
	host.vm.guest.comes_later = host.post;
	host.arbiter = fault_vm_arbiter(&host.vm);
	(void)snprintf(text, sizeof(text), "127.0.0.1:%u", (unsigned int)host.port);
	if (vm_address_parse(text, &address, &err) < 0 ||
	    vm_address_listen(&address, &host.listen_fd, &err) < 0)
		base_bug("%s", err.text);
	options.listen_fd = host.listen_fd;
	options.tls = host.tls = make_tls(false);
	if (mig_in_new(&options, &host.in, &err) < 0 ||
	    base_thread_start(&host.thread, "migrate", move_in, NULL, &err) < 0)
		base_bug("%s", err.text);
	host.has_thread = true;
	fault_say("listening");
}

static void boot(void)
{
	struct base_error err = { 0 };

	if (host.create)
		fault_vm_create(&host.vm);
	if (fault_vm_boot(&host.vm, &err) < 0) {
		fault_say("refused: %s", err.text);
		_exit(3);
	}
	say_running();
}

/* --- what the driver says --- */

static void status(void)
{
	const struct fault_guest *guest = &host.vm.guest;
	const struct fault_witness *witness = guest->witness;
	struct mig_complete counts;
	uint64_t filling = 0;

	if (host.in != NULL)
		(void)mig_in_is_filling(host.in, &filling, &counts);
	fault_say("status verified=%d writes=%" PRIu64 " starts=%" PRIu64 " twice=%" PRIu64
		  " bad_pages=%" PRIu64 " bad_records=%" PRIu64 " disk_errors=%u filling=%" PRIu64,
		  (int)atomic_load(&guest->verified), atomic_load(&guest->writes),
		  atomic_load(&witness->starts), atomic_load(&witness->twice),
		  atomic_load(&witness->bad_pages), atomic_load(&witness->bad_records),
		  atomic_load(&guest->disk_errors), filling);
}

static void stop(void)
{
	vm_migrate_out_free(base_take(&host.vm.images_out)); /* it watches the disk */
	fault_vm_stop(&host.vm);
	status();
	fault_say("stopped");
	_exit(0);
}

static void obey(const char *line)
{
	unsigned int number = 0;

	if (strcmp(line, "move") == 0) {
		begin_out();
	} else if (strcmp(line, "go") == 0) {
		fault_step_go();
		fault_net_go();
	} else if (strcmp(line, "cut") == 0) {
		fault_net_cut();
	} else if (strcmp(line, "heal") == 0) {
		fault_net_heal();
	} else if (strcmp(line, "cancel") == 0 && host.out != NULL) {
		mig_out_cancel(host.out);
	} else if (strcmp(line, "give-up") == 0 && host.in != NULL) {
		mig_in_give_up(host.in);
	} else if (sscanf(line, "nomem %u", &number) == 1) { /* NOLINT: the driver's own */
		alloc_fail_at(number);
	} else if (strcmp(line, "status") == 0) {
		status();
		return;
	} else if (strcmp(line, "stop") == 0) {
		stop();
	} else {
		fault_say("what? %s", line);
		return;
	}
	fault_say("ok %s", line);
}

/* --- the command line --- */

static void take_key(const char *key, const char *value)
{
	uint32_t number = (uint32_t)strtoul(value, NULL, 10);
	char *colon = NULL;

	if (strcmp(key, "create") == 0) {
		host.create = number != 0;
	} else if (strcmp(key, "step") == 0) {
		(void)snprintf(host.step, sizeof(host.step), "%s", value);
		colon = strchr(host.step, ':');
		base_assert(colon != NULL);
		*colon = '\0';
		fault_step_at(host.step, (uint32_t)strtoul(colon + 1, NULL, 10));
	} else if (strcmp(key, "rule") == 0) {
		fault_net_rule(value);
	} else if (strcmp(key, "lose-before") == 0) {
		atomic_store(&host.vm.lose_before, (int)number);
	} else if (strcmp(key, "lose-after") == 0) {
		atomic_store(&host.vm.lose_after, (int)number);
	} else if (strcmp(key, "tls") == 0) {
		(void)snprintf(host.tls_folder, sizeof(host.tls_folder), "%s", value);
	} else if (strcmp(key, "peer") == 0) {
		(void)snprintf(host.tls_peer, sizeof(host.tls_peer), "%s", value);
	} else if (strcmp(key, "resume") == 0) {
		host.resume_ms = number;
	} else if (strcmp(key, "post") == 0) {
		host.post = number != 0;
	} else if (strcmp(key, "give-up") == 0) {
		host.give_up_ms = number;
	} else {
		base_bug("key '%s'", key);
	}
}

static void take_keys(int count, char **words)
{
	for (int i = 0; i < count; i++) {
		char *equals = strchr(words[i], '=');

		base_assert(equals != NULL);
		*equals = '\0';
		take_key(words[i], equals + 1);
	}
}

int main(int argc, char **argv)
{
	char line[100];

	base_log_init(STDERR_FILENO, BASE_LOG_WARNING);
	if (argc < 4)
		base_bug("expected source, destination or boot, a folder and a witness");
	(void)signal(SIGPIPE, SIG_IGN);
	fault_vm_init(&host.vm, argv[2], argv[3],
		      strcmp(argv[1], "source") == 0 ? "destination" : "source");
	if (argc > 5) {
		host.port = (uint16_t)strtoul(argv[4], NULL, 10);
		host.timeout_ms = (uint32_t)strtoul(argv[5], NULL, 10);
		take_keys(argc - 6, argv + 6);
	}
	if (strcmp(argv[1], "destination") == 0)
		begin_in();
	else
		boot();
	while (fgets(line, sizeof(line), stdin) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		obey(line);
	}
	_exit(0); /* the driver has gone */
}
