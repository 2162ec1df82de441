/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A made-up authority and certificates of hosts, for tests of TLS: made anew each time, in a folder
 * that goes at the end.  What cannot be set up aborts.
 */
#ifndef TESTS_SUPPORT_MIG_TLS_LAB_H
#define TESTS_SUPPORT_MIG_TLS_LAB_H

#include <openssl/x509.h>

#include "migrate/mig_tls.h"

#define MIG_TLS_LAB_PATH_BYTES 256u

struct mig_tls_lab {
	char folder[64];
	EVP_PKEY *ca_key;
	X509 *ca;
	EVP_PKEY *other_key; /* an authority that nobody trusts */
	X509 *other_ca;
	long serial;
};

/* What a host's certificate says. */
struct mig_tls_lab_host {
	const char *folder; /* below the lab's: ca.pem, cert.pem, key.pem */
	const char
		*names; /* as OpenSSL's configuration has them: "DNS:a,IP:192.0.2.1"; NULL: none */
	const char *common_name; /* NULL: folder */
	const char *usage;       /* extended key usage; NULL: "serverAuth,clientAuth" */
	long from_days, to_days; /* from now; both 0: -1 to 1 */
	bool of_other;           /* the authority */
	int filler_bytes;        /* more in the certificate */
	long serial;             /* what it got */
};

void mig_tls_lab_init(struct mig_tls_lab *lab);
void mig_tls_lab_fini(struct mig_tls_lab *lab);
/* Makes the folder with its files. */
void mig_tls_lab_host(struct mig_tls_lab *lab, struct mig_tls_lab_host *host);
/* crl.pem in @folder: @serial of the authority is not good any more; 0: an empty list.  Valid from
 * @from_days to @to_days. */
void mig_tls_lab_revoke(struct mig_tls_lab *lab, const char *folder, long serial, long from_days,
			long to_days);
void mig_tls_lab_path(const struct mig_tls_lab *lab, const char *folder, const char *file,
		      char ret_path[MIG_TLS_LAB_PATH_BYTES]);
/* What mig_tls_new() makes of a folder, for one @peer. */
int mig_tls_lab_open(const struct mig_tls_lab *lab, const char *folder, bool is_source,
		     const char *peer, struct mig_tls **ret_tls, struct base_error *err);

#endif
