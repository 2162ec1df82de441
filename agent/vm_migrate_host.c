/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/vm_migrate_host.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

static int open_folder(const char *path, int *ret_fd, struct base_error *err)
{
	(void)mkdir(path, 0700); /* whether it is there shows now */
	*ret_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*ret_fd < 0)
		return base_fail(err, -errno, "%s: expected a directory", strerrordesc_np(errno));
	return 0;
}

static int open_host(const struct vm_config *config, const char *path, struct mig_host **ret_host,
		     struct base_error *err)
{
	BASE_CLOSE int fd = -1;
	struct mig_host_options options = {
		.most = { [MIG_OUTGOING] = (uint32_t)config->migrate_out,
			  [MIG_INCOMING] = (uint32_t)config->migrate_in },
		.bytes_per_s = config->migrate_bandwidth,
	};
	const char *healed = NULL;
	int code = open_folder(path, &fd, err);

	options.directory_fd = fd;
	if (code == 0)
		code = mig_host_new(&options, ret_host, err);
	if (code < 0)
		return code;
	healed = mig_host_healed(*ret_host);
	if (healed != NULL)
		base_log(BASE_LOG_WARNING, "vm.move-host-healed", "vm=%s dir=%s what=%s",
			 config->name, base_log_str(path), base_log_str(healed));
	return 0;
}

int vm_migrate_host_open(const struct vm_config *config, struct mig_host **ret_host,
			 struct base_error *err)
{
	bool is_named = config->migrate_dir[0] != '\0';
	const char *path = is_named ? config->migrate_dir : VM_MIGRATE_DIR;
	struct base_error why = { 0 };
	int code = 0;

	*ret_host = NULL;
	if (!is_named)
		(void)mkdir(VM_RUN_DIR, 0755);
	code = open_host(config, path, ret_host, &why);
	if (code == 0)
		return 0;
	/* What was asked for is kept, or nothing starts; the usual needs a folder that only root
	 * can make. */
	if (is_named || config->migrate_bandwidth != 0)
		return base_fail(err, code, "key 'migrate-dir': value '%s': %s", path, why.text);
	base_log(BASE_LOG_NOTICE, "vm.move-host-none", "vm=%s dir=%s why=%s", config->name, path,
		 base_log_str(why.text));
	return 0;
}
