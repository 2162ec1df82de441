/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/mig_tls_lab.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#define DAY_S (24L * 60 * 60)

static void need(bool good, const char *what)
{
	if (!good)
		base_bug("tls lab: %s, error %d", what, errno);
}

static void put_extension(X509 *cert, X509 *issuer, int kind, const char *value)
{
	X509V3_CTX context;
	X509_EXTENSION *extension = NULL;

	X509V3_set_ctx_nodb(&context);
	X509V3_set_ctx(&context, issuer, cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &context, kind, value);
	need(extension != NULL && X509_add_ext(cert, extension, -1) == 1, value);
	X509_EXTENSION_free(extension);
}

static void put_filler(X509 *cert, int bytes)
{
	ASN1_OCTET_STRING *filler = ASN1_OCTET_STRING_new();
	ASN1_OBJECT *kind = OBJ_txt2obj("1.3.6.1.4.1.55555.1", 1);
	X509_EXTENSION *extension = NULL;
	uint8_t *zeros = calloc(1, (size_t)bytes);

	need(zeros != NULL && ASN1_OCTET_STRING_set(filler, zeros, bytes) == 1, "filler");
	extension = X509_EXTENSION_create_by_OBJ(NULL, kind, 0, filler);
	need(extension != NULL && X509_add_ext(cert, extension, -1) == 1, "filler");
	X509_EXTENSION_free(extension);
	ASN1_OBJECT_free(kind);
	ASN1_OCTET_STRING_free(filler);
	free(zeros);
}

static X509 *cert_new(struct mig_tls_lab *lab, EVP_PKEY *key, const char *name, long from_days,
		      long to_days)
{
	X509 *cert = X509_new();

	need(cert != NULL && X509_set_version(cert, X509_VERSION_3) == 1 &&
		     ASN1_INTEGER_set(X509_get_serialNumber(cert), ++lab->serial) == 1 &&
		     X509_gmtime_adj(X509_getm_notBefore(cert), from_days * DAY_S) != NULL &&
		     X509_gmtime_adj(X509_getm_notAfter(cert), to_days * DAY_S) != NULL &&
		     X509_set_pubkey(cert, key) == 1 &&
		     X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
						(const unsigned char *)name, -1, -1, 0) == 1,
	     "certificate");
	return cert;
}

static X509 *authority_new(struct mig_tls_lab *lab, EVP_PKEY *key, const char *name)
{
	X509 *cert = cert_new(lab, key, name, -30, 30);

	need(X509_set_issuer_name(cert, X509_get_subject_name(cert)) == 1, "issuer");
	put_extension(cert, cert, NID_basic_constraints, "critical,CA:TRUE");
	put_extension(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign");
	put_extension(cert, cert, NID_subject_key_identifier, "hash");
	need(X509_sign(cert, key, EVP_sha256()) > 0, "signature");
	return cert;
}

void mig_tls_lab_init(struct mig_tls_lab *lab)
{
	*lab = (struct mig_tls_lab){ .folder = "/tmp/mig-tls.XXXXXX" };
	need(mkdtemp(lab->folder) != NULL, "folder");
	lab->ca_key = EVP_EC_gen("P-256");
	lab->other_key = EVP_EC_gen("P-256");
	need(lab->ca_key != NULL && lab->other_key != NULL, "key");
	lab->ca = authority_new(lab, lab->ca_key, "test authority");
	lab->other_ca = authority_new(lab, lab->other_key, "test authority"); /* of the same name */
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *at)
{
	(void)status;
	(void)kind;
	(void)at;
	return remove(path);
}

void mig_tls_lab_fini(struct mig_tls_lab *lab)
{
	need(nftw(lab->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS) == 0, lab->folder);
	X509_free(lab->ca);
	X509_free(lab->other_ca);
	EVP_PKEY_free(lab->ca_key);
	EVP_PKEY_free(lab->other_key);
}

void mig_tls_lab_path(const struct mig_tls_lab *lab, const char *folder, const char *file,
		      char ret_path[MIG_TLS_LAB_PATH_BYTES])
{
	(void)snprintf(ret_path, MIG_TLS_LAB_PATH_BYTES, "%s/%s/%s", lab->folder, folder, file);
}

static FILE *create(const struct mig_tls_lab *lab, const char *folder, const char *file)
{
	char path[MIG_TLS_LAB_PATH_BYTES];
	FILE *to = NULL;
	int fd = -1;

	mig_tls_lab_path(lab, folder, file, path);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	need(fd >= 0, path);
	to = fdopen(fd, "w");
	need(to != NULL, path);
	return to;
}

void mig_tls_lab_host(struct mig_tls_lab *lab, struct mig_tls_lab_host *host)
{
	bool has_dates = host->from_days != 0 || host->to_days != 0;
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *issuer = host->of_other ? lab->other_ca : lab->ca;
	X509 *cert = NULL;
	FILE *to = NULL;
	char path[MIG_TLS_LAB_PATH_BYTES];

	need(key != NULL, "key");
	cert = cert_new(lab, key, host->common_name != NULL ? host->common_name : host->folder,
			has_dates ? host->from_days : -1, has_dates ? host->to_days : 1);
	need(X509_set_issuer_name(cert, X509_get_subject_name(issuer)) == 1, "issuer");
	put_extension(cert, issuer, NID_basic_constraints, "critical,CA:FALSE");
	put_extension(cert, issuer, NID_ext_key_usage,
		      host->usage != NULL ? host->usage : "serverAuth,clientAuth");
	if (host->names != NULL)
		put_extension(cert, issuer, NID_subject_alt_name, host->names);
	if (host->filler_bytes > 0)
		put_filler(cert, host->filler_bytes);
	need(X509_sign(cert, host->of_other ? lab->other_key : lab->ca_key, EVP_sha256()) > 0,
	     "signature");
	host->serial = lab->serial;
	mig_tls_lab_path(lab, host->folder, "", path);
	need(mkdir(path, 0700) == 0, path);
	to = create(lab, host->folder, "ca.pem");
	need(PEM_write_X509(to, lab->ca) == 1 && fclose(to) == 0, "ca.pem");
	to = create(lab, host->folder, "cert.pem");
	need(PEM_write_X509(to, cert) == 1 && fclose(to) == 0, "cert.pem");
	to = create(lab, host->folder, "key.pem");
	need(PEM_write_PrivateKey(to, key, NULL, NULL, 0, NULL, NULL) == 1 && fclose(to) == 0,
	     "key.pem");
	X509_free(cert);
	EVP_PKEY_free(key);
}

void mig_tls_lab_revoke(struct mig_tls_lab *lab, const char *folder, long serial, long from_days,
			long to_days)
{
	X509_CRL *list = X509_CRL_new();
	ASN1_TIME *from = X509_gmtime_adj(NULL, from_days * DAY_S);
	ASN1_TIME *to = X509_gmtime_adj(NULL, to_days * DAY_S);
	FILE *file = create(lab, folder, "crl.pem");

	need(list != NULL && from != NULL && to != NULL && X509_CRL_set_version(list, 1) == 1 &&
		     X509_CRL_set_issuer_name(list, X509_get_subject_name(lab->ca)) == 1 &&
		     X509_CRL_set1_lastUpdate(list, from) == 1 &&
		     X509_CRL_set1_nextUpdate(list, to) == 1,
	     "list");
	if (serial > 0) {
		X509_REVOKED *entry = X509_REVOKED_new();
		ASN1_INTEGER *number = ASN1_INTEGER_new();

		need(entry != NULL && number != NULL && ASN1_INTEGER_set(number, serial) == 1 &&
			     X509_REVOKED_set_serialNumber(entry, number) == 1 &&
			     X509_REVOKED_set_revocationDate(entry, from) == 1 &&
			     X509_CRL_add0_revoked(list, entry) == 1,
		     "entry");
		ASN1_INTEGER_free(number);
	}
	need(X509_CRL_sign(list, lab->ca_key, EVP_sha256()) > 0 &&
		     PEM_write_X509_CRL(file, list) == 1 && fclose(file) == 0,
	     "crl.pem");
	X509_CRL_free(list);
	ASN1_TIME_free(from);
	ASN1_TIME_free(to);
}

int mig_tls_lab_open(const struct mig_tls_lab *lab, const char *folder, bool is_source,
		     const char *peer, struct mig_tls **ret_tls, struct base_error *err)
{
	char path[MIG_TLS_LAB_PATH_BYTES];
	struct mig_tls_options options = { .is_source = is_source,
					   .peers = &peer,
					   .peer_count = 1 };
	BASE_CLOSE int fd = -1;

	mig_tls_lab_path(lab, folder, "", path);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	need(fd >= 0, path);
	options.directory_fd = fd;
	return mig_tls_new(&options, ret_tls, err);
}
