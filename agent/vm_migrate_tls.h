/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS of a worker's migrations, as configuration and command say: migrate/mig_tls.h.  The folder is
 * opened before the lock-down, the files are read when a migration begins.  docs/migrate/tls.md.
 * Main thread.
 */
#ifndef AGENT_VM_MIGRATE_TLS_H
#define AGENT_VM_MIGRATE_TLS_H

#include "agent/vm_config.h"
#include "migrate/mig_tls.h"

/**
 * vm_migrate_tls_open - the folder of certificates.
 * *@ret_fd is -1 where nothing needs it, or the usual folder is not there; whoever needs it then
 * hears that from vm_migrate_tls_new().  A folder that is named, and one that a VM is to come by,
 * has to be there: "key 'migrate-tls': value '...': ...".
 */
BASE_MUST_CHECK int vm_migrate_tls_open(const struct vm_config *config, int *ret_fd,
					struct base_error *err);

/**
 * vm_migrate_tls_new - of a migration away to @peer, or, with NULL, of one that comes from one of
 * the configuration's peers.
 * What mig_tls_new() gives, within "TLS folder '...'"; -EINVAL names @peer.
 */
BASE_MUST_CHECK int vm_migrate_tls_new(const struct vm_config *config, int directory_fd,
				       const char *peer, struct mig_tls **ret_tls,
				       struct base_error *err);

/* Whether the names of the key migrate-peers can be such.  Pure. */
BASE_MUST_CHECK int vm_migrate_tls_check_peers(const char *names, struct base_error *err);

#endif
