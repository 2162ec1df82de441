/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/vm_migrate_tls.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/cleanup.h"

#define SEPARATORS " ,"

/* Names out of a text of many. */
struct names {
	uint32_t count;
	const char *list[MIG_TLS_PEERS_MAX];
	char text[VM_PEERS_BYTES];
};

static int split(const char *text, struct names *names, struct base_error *err)
{
	char *rest = NULL;

	names->count = 0;
	(void)snprintf(names->text, sizeof(names->text), "%s", text);
	for (const char *name = strtok_r(names->text, SEPARATORS, &rest); name != NULL;
	     name = strtok_r(NULL, SEPARATORS, &rest)) {
		if (names->count == MIG_TLS_PEERS_MAX)
			return base_fail(err, -EINVAL, "expected at most %u names",
					 MIG_TLS_PEERS_MAX);
		if (mig_tls_check_name(name, err) < 0)
			return -EINVAL;
		names->list[names->count++] = name;
	}
	return names->count > 0 ? 0 : base_fail(err, -EINVAL, "expected names of hosts");
}

int vm_migrate_tls_check_peers(const char *names, struct base_error *err)
{
	struct names found;

	return split(names, &found, err);
}

static const char *folder(const struct vm_config *config)
{
	return config->migrate_tls[0] != '\0' ? config->migrate_tls : MIG_TLS_DIR;
}

int vm_migrate_tls_open(const struct vm_config *config, int *ret_fd, struct base_error *err)
{
	bool is_needed = config->migrate_tls[0] != '\0' ||
			 (config->incoming[0] != '\0' && config->migrate_clear == VM_SWITCH_OFF);

	mig_tls_begin();
	*ret_fd = open(folder(config), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*ret_fd >= 0 || !is_needed)
		return 0;
	return base_fail(err, -errno,
			 "key 'migrate-tls': value '%s': %s: expected the folder of this host's "
			 "certificate, or key 'migrate-clear' on",
			 folder(config), strerrordesc_np(errno));
}

int vm_migrate_tls_new(const struct vm_config *config, int directory_fd, const char *peer,
		       struct mig_tls **ret_tls, struct base_error *err)
{
	struct mig_tls_options options = { .directory_fd = directory_fd,
					   .is_source = peer != NULL,
					   .peers = &peer,
					   .peer_count = 1 };
	struct names names;
	int code = 0;

	if (directory_fd < 0)
		return base_fail(err, -ENOENT,
				 "TLS folder '%s': it was not there when the worker started: "
				 "expected this host's certificate in it, or clear text by wish",
				 folder(config));
	if (peer == NULL) {
		code = split(config->migrate_peers, &names, err);
		options.peers = names.list;
		options.peer_count = names.count;
	}
	if (code < 0)
		return base_fail_within(err, code, "key 'migrate-peers'");
	code = mig_tls_new(&options, ret_tls, err);
	return code < 0 ? base_fail_within(err, code, "folder '%s'", folder(config)) : 0;
}
