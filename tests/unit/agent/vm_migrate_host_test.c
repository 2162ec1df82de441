/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/vm_migrate_host.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[48];
static struct vm_config *config;
static struct base_error err;

static void setup(void)
{
	(void)snprintf(folder, sizeof(folder), "/tmp/godwit-moves-XXXXXX");
	config = calloc(1, sizeof(*config));
	if (config == NULL || mkdtemp(folder) == NULL)
		base_bug("no folder");
	config->migrate_out = 1;
	config->migrate_in = 3;
	(void)snprintf(config->migrate_dir, sizeof(config->migrate_dir), "%s/moves", folder);
}

static void teardown(void)
{
	static const char *const names[] = { "moves/outgoing", "moves/incoming",
					     "moves/bandwidth" };
	int fd = open(folder, O_DIRECTORY | O_RDONLY | O_CLOEXEC);

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		(void)unlinkat(fd, names[i], 0);
	if (unlinkat(fd, "moves", AT_REMOVEDIR) < 0)
		(void)unlinkat(fd, "moves", 0);
	(void)close(fd);
	(void)rmdir(folder);
	free(config);
}

TestSuite(vm_migrate_host, .init = setup, .fini = teardown);

Test(vm_migrate_host, the_folder_is_made_and_the_limits_are_its)
{
	struct mig_host *host = NULL;
	struct stat status;
	uint32_t most = 0;

	cr_assert_eq(vm_migrate_host_open(config, &host, &err), 0, "%s", err.text);
	cr_assert_eq(mig_host_busy(host, MIG_OUTGOING, &most), 0);
	cr_assert_eq(most, 1);
	cr_assert_eq(mig_host_busy(host, MIG_INCOMING, &most), 0);
	cr_assert_eq(most, 3);
	cr_assert_not(mig_host_is_capped(host));
	cr_assert_eq(stat(config->migrate_dir, &status), 0);
	cr_assert_eq(status.st_mode & 07777, 0700);
	mig_host_free(host);
}

Test(vm_migrate_host, the_cap_is_its_too)
{
	struct mig_host *host = NULL;

	config->migrate_bandwidth = 1 << 20;
	cr_assert_eq(vm_migrate_host_open(config, &host, &err), 0, "%s", err.text);
	cr_assert(mig_host_is_capped(host));
	mig_host_free(host);
}

Test(vm_migrate_host, a_file_in_the_folders_place)
{
	struct mig_host *host = NULL;
	int fd = open(config->migrate_dir, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	(void)close(fd);
	cr_assert_eq(vm_migrate_host_open(config, &host, &err), -ENOTDIR);
	cr_assert_not_null(strstr(err.text, "key 'migrate-dir': value '/tmp/godwit-moves-"), "%s",
			   err.text);
	cr_assert_null(host);
}

Test(vm_migrate_host, a_folder_above_that_is_not_there)
{
	struct mig_host *host = NULL;

	(void)snprintf(config->migrate_dir, sizeof(config->migrate_dir), "%s/no/moves", folder);
	cr_assert_eq(vm_migrate_host_open(config, &host, &err), -ENOENT);
	cr_assert_null(host);
}

Test(vm_migrate_host, a_number_that_nobody_owes_is_put_right)
{
	static const uint64_t far = UINT64_MAX;
	struct mig_host *host = NULL;
	uint64_t value = 0;
	char path[64];
	int fd = -1;

	config->migrate_bandwidth = 1 << 20;
	cr_assert_eq(mkdir(config->migrate_dir, 0700), 0);
	(void)snprintf(path, sizeof(path), "%s/moves/bandwidth", folder);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	cr_assert_eq(write(fd, &far, sizeof(far)), (ssize_t)sizeof(far));
	cr_assert_eq(vm_migrate_host_open(config, &host, &err), 0, "%s", err.text);
	cr_assert_eq(pread(fd, &value, sizeof(value), 0), (ssize_t)sizeof(value));
	cr_assert_eq(value, 0);
	(void)close(fd);
	mig_host_free(host);
}
