/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/vm_migrate_tls.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "tests/support/mig_tls_lab.h"

static struct mig_tls_lab lab;
static struct vm_config *config;
static struct base_error err;

static void setup(void)
{
	config = calloc(1, sizeof(*config));
	cr_assert_not_null(config);
	mig_tls_lab_init(&lab);
	mig_tls_lab_host(&lab,
			 &(struct mig_tls_lab_host){ .folder = "a", .names = "DNS:a.example" });
	mig_tls_lab_path(&lab, "a", "", config->migrate_tls);
	(void)snprintf(config->migrate_peers, sizeof(config->migrate_peers), "b, c  192.0.2.2");
	config->migrate_clear = VM_SWITCH_OFF;
}

static void teardown(void)
{
	mig_tls_lab_fini(&lab);
	free(config);
}

TestSuite(vm_migrate_tls, .init = setup, .fini = teardown);

static void has_text(const char *text)
{
	cr_assert_not_null(strstr(err.text, text), "'%s', expected '%s'", err.text, text);
}

Test(vm_migrate_tls, files_are_read_when_a_migration_begins)
{
	BASE_CLOSE int fd = -1;
	struct mig_tls *tls = NULL;
	char path[MIG_TLS_LAB_PATH_BYTES];

	mig_tls_lab_path(&lab, "a", "key.pem", path);
	cr_assert_eq(rename(path, "/tmp/vm_migrate_tls_test.key"), 0);
	cr_assert_eq(vm_migrate_tls_open(config, &fd, &err), 0, "%s", err.text);
	cr_assert_eq(vm_migrate_tls_new(config, fd, "b", &tls, &err), -ENOENT);
	has_text("folder '");
	has_text("file 'key.pem': ");
	cr_assert_eq(rename("/tmp/vm_migrate_tls_test.key", path), 0);
	cr_assert_eq(vm_migrate_tls_new(config, fd, "b", &tls, &err), 0, "%s", err.text);
	mig_tls_free(tls);
	cr_assert_eq(vm_migrate_tls_new(config, fd, NULL, &tls, &err), 0, "%s", err.text);
	mig_tls_free(tls);
}

Test(vm_migrate_tls, a_folder_that_is_named_has_to_be_there)
{
	int fd = -1;

	(void)snprintf(config->migrate_tls, sizeof(config->migrate_tls), "/nonexistent");
	cr_assert_eq(vm_migrate_tls_open(config, &fd, &err), -ENOENT);
	has_text("key 'migrate-tls': value '/nonexistent': No such file or directory: expected");
}

/* A worker that is never moved needs none; one that shall be hears what is missing. */
Test(vm_migrate_tls, without_a_folder_nothing_moves)
{
	struct mig_tls *tls = NULL;
	int fd = -1;

	config->migrate_tls[0] = '\0';
	if (access(MIG_TLS_DIR, F_OK) == 0)
		cr_skip_test("SKIP: this host has " MIG_TLS_DIR);
	cr_assert_eq(vm_migrate_tls_open(config, &fd, &err), 0, "%s", err.text);
	cr_assert_eq(fd, -1);
	cr_assert_eq(vm_migrate_tls_new(config, fd, "b", &tls, &err), -ENOENT);
	has_text("TLS folder '" MIG_TLS_DIR "'");
	(void)snprintf(config->incoming, sizeof(config->incoming), "127.0.0.1:1");
	cr_assert_eq(vm_migrate_tls_open(config, &fd, &err), -ENOENT);
	has_text("or key 'migrate-clear' on");
	config->migrate_clear = VM_SWITCH_ON;
	cr_assert_eq(vm_migrate_tls_open(config, &fd, &err), 0, "%s", err.text);
}

Test(vm_migrate_tls, names_of_peers)
{
	char many[VM_PEERS_BYTES] = "";

	cr_assert_eq(vm_migrate_tls_check_peers("a", &err), 0);
	cr_assert_eq(vm_migrate_tls_check_peers(" a,b , 192.0.2.1 fe80::1,", &err), 0);
	cr_assert_eq(vm_migrate_tls_check_peers("", &err), -EINVAL);
	has_text("expected names of hosts");
	cr_assert_eq(vm_migrate_tls_check_peers("a,*.b", &err), -EINVAL);
	has_text("expected a host's name");
	for (uint32_t i = 0; i < MIG_TLS_PEERS_MAX; i++)
		(void)strcat(many, "a ");
	cr_assert_eq(vm_migrate_tls_check_peers(many, &err), 0);
	(void)strcat(many, "a");
	cr_assert_eq(vm_migrate_tls_check_peers(many, &err), -EINVAL);
	has_text("expected at most 64 names");
}
