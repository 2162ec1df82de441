/* SPDX-License-Identifier: Apache-2.0 */
/* What this host has for TLS: authorities, certificate, key, lists of what is no longer good. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "migrate/mig_tls_priv.h"

#define CA_FILE   "ca.pem"
#define CERT_FILE "cert.pem"
#define KEY_FILE  "key.pem"
#define CRL_FILE  "crl.pem"

#define OTHERS_MODE 0027u /* the group may read */

struct content {
	uint8_t *bytes;
	size_t size_bytes;
	BIO *bio; /* over them */
};

static void content_fini(struct content *content)
{
	BIO_free(content->bio);
	if (content->bytes != NULL)
		OPENSSL_cleanse(content->bytes, content->size_bytes);
	free(content->bytes);
}

#define CONTENT BASE_CLEANUP(content_fini) struct content

static void x509_freep(X509 **cert)
{
	X509_free(*cert);
}

static void key_freep(EVP_PKEY **key)
{
	EVP_PKEY_free(*key);
}

static void store_context_freep(X509_STORE_CTX **context)
{
	X509_STORE_CTX_free(*context);
}

/* What OpenSSL did not like, in its words. */
static const char *openssl_text(void)
{
	const char *text = ERR_reason_error_string(ERR_peek_last_error());

	return text != NULL ? text : "unknown error";
}

static int check_owner(const struct stat *status, const char *name, struct base_error *err)
{
	if (status->st_uid != 0 && status->st_uid != geteuid())
		return base_fail(err, -EPERM,
				 "TLS: file '%s': owner %u, expected root or the worker's user",
				 name, status->st_uid);
	if ((status->st_mode & OTHERS_MODE) != 0)
		return base_fail(
			err, -EPERM,
			"TLS: file '%s': mode %04o, expected nothing for others (0600 or 0640)",
			name, status->st_mode & 07777u);
	return 0;
}

/* -ENOENT only where it is not there. */
static int load(int directory_fd, const char *name, struct content *ret_content,
		struct base_error *err)
{
	/* What is no file must not hold it up. */
	BASE_CLOSE int fd =
		openat(directory_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat status;
	int r = 0;

	if (fd < 0)
		return base_fail_errno(err, -errno, "TLS: file '%s'", name);
	if (fstat(fd, &status) < 0)
		return base_fail_errno(err, -errno, "TLS: file '%s'", name);
	if (!S_ISREG(status.st_mode) || status.st_size <= 0 ||
	    status.st_size > (off_t)MIG_TLS_FILE_BYTES_MAX)
		return base_fail(err, -EINVAL,
				 "TLS: file '%s': expected a regular file of 1 to %u bytes", name,
				 MIG_TLS_FILE_BYTES_MAX);
	if (strcmp(name, KEY_FILE) == 0)
		r = check_owner(&status, name, err);
	if (r < 0)
		return r;
	ret_content->size_bytes = (size_t)status.st_size;
	ret_content->bytes = malloc(ret_content->size_bytes);
	if (ret_content->bytes == NULL)
		return base_fail(err, -ENOMEM, "TLS: file '%s'", name);
	r = base_pread_all(fd, ret_content->bytes, ret_content->size_bytes, 0);
	if (r < 0)
		return base_fail_errno(err, r == -ENODATA ? -EINVAL : r, "TLS: file '%s'", name);
	ret_content->bio = BIO_new_mem_buf(ret_content->bytes, (int)ret_content->size_bytes);
	return ret_content->bio != NULL ? 0 : base_fail(err, -ENOMEM, "TLS: file '%s'", name);
}

/* Nobody is asked for a passphrase. */
/* NOLINTNEXTLINE(readability-non-const-parameter): OpenSSL would have it written there */
static int no_passphrase(char *to, int size, int rwflag, void *context)
{
	(void)to;
	(void)size;
	(void)rwflag;
	(void)context;
	return -1;
}

/* Whether the last PEM_read ended because nothing more was there, and not in the middle of it. */
static bool is_at_end(void)
{
	unsigned long code = ERR_peek_last_error();

	return code == 0 ||
	       (ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE);
}

static int damaged(const char *name, const char *expected, struct base_error *err)
{
	return base_fail(err, -EINVAL, "TLS: file '%s': %s, expected %s", name, openssl_text(),
			 expected);
}

static int load_authorities(SSL_CTX *context, int directory_fd, struct base_error *err)
{
	static const char expected[] = "certificates of authorities in PEM";
	X509_STORE *store = SSL_CTX_get_cert_store(context);
	CONTENT content = { .bytes = NULL };
	int count = 0;
	int r = load(directory_fd, CA_FILE, &content, err);

	if (r < 0)
		return r;
	for (;; count++) {
		BASE_CLEANUP(x509_freep) X509 *cert = NULL;

		ERR_clear_error();
		cert = PEM_read_bio_X509(content.bio, NULL, no_passphrase, NULL);
		if (cert == NULL)
			break;
		if (X509_STORE_add_cert(store, cert) != 1)
			return damaged(CA_FILE, expected, err);
	}
	if (count == 0 || !is_at_end())
		return damaged(CA_FILE, expected, err);
	return 0;
}

static int load_lists(SSL_CTX *context, int directory_fd, struct base_error *err)
{
	static const char expected[] = "lists of revoked certificates in PEM";
	X509_STORE *store = SSL_CTX_get_cert_store(context);
	CONTENT content = { .bytes = NULL };
	int count = 0;
	int r = load(directory_fd, CRL_FILE, &content, err);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	for (;; count++) {
		X509_CRL *list = NULL;
		int added = 0;

		ERR_clear_error();
		list = PEM_read_bio_X509_CRL(content.bio, NULL, no_passphrase, NULL);
		if (list == NULL)
			break;
		added = X509_STORE_add_crl(store, list);
		X509_CRL_free(list);
		if (added != 1)
			return damaged(CRL_FILE, expected, err);
	}
	if (count == 0 || !is_at_end())
		return damaged(CRL_FILE, expected, err);
	if (X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL) != 1)
		return base_fail(err, -ENOMEM, "TLS: file '%s'", CRL_FILE);
	return 0;
}

static int load_certificate(SSL_CTX *context, int directory_fd, struct base_error *err)
{
	static const char expected[] = "this host's certificate in PEM";
	CONTENT content = { .bytes = NULL };
	int count = 0;
	int r = load(directory_fd, CERT_FILE, &content, err);

	if (r < 0)
		return r;
	for (;; count++) {
		BASE_CLEANUP(x509_freep) X509 *cert = NULL;
		long added = 0;

		ERR_clear_error();
		cert = PEM_read_bio_X509(content.bio, NULL, no_passphrase, NULL);
		if (cert == NULL)
			break;
		added = count == 0 ? SSL_CTX_use_certificate(context, cert)
				   : SSL_CTX_add1_chain_cert(context, cert);
		if (added != 1)
			return damaged(CERT_FILE, expected, err);
	}
	if (count == 0 || !is_at_end())
		return damaged(CERT_FILE, expected, err);
	return 0;
}

static int load_key(SSL_CTX *context, int directory_fd, struct base_error *err)
{
	CONTENT content = { .bytes = NULL };
	BASE_CLEANUP(key_freep) EVP_PKEY *key = NULL;
	int r = load(directory_fd, KEY_FILE, &content, err);

	if (r < 0)
		return r;
	ERR_clear_error();
	key = PEM_read_bio_PrivateKey(content.bio, NULL, no_passphrase, NULL);
	if (key == NULL)
		return damaged(KEY_FILE, "a private key in PEM without a passphrase", err);
	if (SSL_CTX_use_PrivateKey(context, key) != 1 || SSL_CTX_check_private_key(context) != 1)
		return damaged(KEY_FILE, "the key of the certificate in '" CERT_FILE "'", err);
	return 0;
}

/* Whether the other side would take it. */
static int check_own(SSL_CTX *context, const char *usage, struct base_error *err)
{
	BASE_CLEANUP(store_context_freep) X509_STORE_CTX *check = X509_STORE_CTX_new();
	STACK_OF(X509) *chain = NULL;

	if (check == NULL || SSL_CTX_get0_chain_certs(context, &chain) != 1 ||
	    X509_STORE_CTX_init(check, SSL_CTX_get_cert_store(context),
				SSL_CTX_get0_certificate(context), chain) != 1 ||
	    X509_STORE_CTX_set_default(check, usage) != 1)
		return base_fail(err, -ENOMEM, "TLS: file '%s'", CERT_FILE);
	if (X509_verify_cert(check) == 1)
		return 0;
	return base_fail(err, -EKEYEXPIRED,
			 "TLS: file '%s': %s, expected this host's certificate, valid today, for "
			 "server and client, of an authority in '%s'",
			 CERT_FILE, X509_verify_cert_error_string(X509_STORE_CTX_get_error(check)),
			 CA_FILE);
}

int mig_tls_files_load(SSL_CTX *context, int directory_fd, struct base_error *err)
{
	int r = load_authorities(context, directory_fd, err);

	if (r == 0)
		r = load_lists(context, directory_fd, err);
	if (r == 0)
		r = load_certificate(context, directory_fd, err);
	if (r == 0)
		r = load_key(context, directory_fd, err);
	if (r == 0)
		r = check_own(context, "ssl_client", err);
	if (r == 0)
		r = check_own(context, "ssl_server", err);
	ERR_clear_error();
	return r;
}
