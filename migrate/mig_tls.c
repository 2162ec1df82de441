/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_tls.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "migrate/mig_tls_priv.h"

#define GROUPS         "X25519:P-256:P-384"
#define SECURITY_LEVEL 2 /* 112 bits: RSA from 2048 */
#define CHAIN_DEPTH    4
#define LABEL_MAX      63u /* of a DNS name */
#define NAMES_BYTES    MIG_TLS_EXPECTED_BYTES
#define SHOWN_MAX      4u /* names in an error */

static const unsigned char alpn[] = "\x10" MIG_TLS_ALPN; /* its length goes before it */

/* --- names --- */

static bool is_address(const char *name)
{
	uint8_t bytes[16];

	return inet_pton(AF_INET, name, bytes) == 1 || inet_pton(AF_INET6, name, bytes) == 1;
}

/* Of letters, digits and hyphens between them; an underscore is seen, too. */
static bool is_label(const char *label, size_t size_bytes)
{
	if (size_bytes == 0 || size_bytes > LABEL_MAX || label[0] == '-' ||
	    label[size_bytes - 1] == '-')
		return false;
	for (size_t i = 0; i < size_bytes; i++)
		if (!isascii((unsigned char)label[i]) ||
		    (!isalnum((unsigned char)label[i]) && label[i] != '-' && label[i] != '_'))
			return false;
	return true;
}

static bool is_dns_name(const char *name)
{
	const char *label = name;

	if (strlen(name) >= MIG_TLS_NAME_BYTES - 2)
		return false;
	for (;;) {
		size_t size_bytes = strcspn(label, ".");

		if (!is_label(label, size_bytes))
			return false;
		if (label[size_bytes] == '\0')
			break;
		label += size_bytes + 1;
	}
	return strspn(label, "0123456789") < strlen(label); /* else a mistyped address */
}

int mig_tls_check_name(const char *name, struct base_error *err)
{
	if (is_address(name) || is_dns_name(name))
		return 0;
	return base_fail(
		err, -EINVAL,
		"expected a host's name, such as host1.example, or its address in numbers");
}

/* The name of @tls that @cert has; NULL: none. */
static const char *name_of(const struct mig_tls *tls, X509 *cert)
{
	const unsigned int flags =
		X509_CHECK_FLAG_NO_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT;

	for (uint32_t i = 0; i < tls->peer_count; i++) {
		const char *name = tls->peers[i];
		int same = is_address(name) ? X509_check_ip_asc(cert, name, 0)
					    : X509_check_host(cert, name, 0, flags, NULL);

		if (same == 1)
			return name;
	}
#ifdef GODWIT_MUTANT_MIG_TLS_NAME
	return tls->peers[0];
#endif
	return NULL;
}

static void put(char *text, const char *more)
{
	size_t used = strlen(text);

	(void)snprintf(text + used, NAMES_BYTES - used, "%s", more);
}

/* An outside string of @size_bytes in quotes. */
static void put_name(char *text, const unsigned char *name, int size_bytes)
{
	char quoted[48];
	size_t used = 1;

	quoted[0] = '\'';
	for (int i = 0; i < size_bytes && used < sizeof(quoted) - 2; i++, used++) {
		quoted[used] = '?';
		if (name[i] > ' ' && name[i] < 0x7f && name[i] != '\'')
			memcpy(&quoted[used], &name[i], 1);
	}
	quoted[used++] = '\'';
	quoted[used] = '\0';
	if (text[0] != '\0')
		put(text, ", ");
	put(text, quoted);
}

static void put_address(char *text, const ASN1_OCTET_STRING *address)
{
	const unsigned char *bytes = ASN1_STRING_get0_data(address);
	int size_bytes = ASN1_STRING_length(address);
	char number[INET6_ADDRSTRLEN] = "?";

	if (size_bytes == 4)
		(void)inet_ntop(AF_INET, bytes, number, sizeof(number));
	else if (size_bytes == 16)
		(void)inet_ntop(AF_INET6, bytes, number, sizeof(number));
	put_name(text, (const unsigned char *)number, (int)strlen(number));
}

/* The first names of a certificate, for people. */
static void names_text(const X509 *cert, char text[NAMES_BYTES])
{
	GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	uint32_t shown = 0;

	text[0] = '\0';
	for (int i = 0; i < sk_GENERAL_NAME_num(names) && shown < SHOWN_MAX; i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

		shown++;
		if (name->type == GEN_DNS)
			put_name(text, ASN1_STRING_get0_data(name->d.dNSName),
				 ASN1_STRING_length(name->d.dNSName));
		else if (name->type == GEN_IPADD)
			put_address(text, name->d.iPAddress);
		else
			shown--;
	}
	if (shown == 0)
		put(text, "nobody");
	GENERAL_NAMES_free(names);
}

void mig_tls_expected(const struct mig_tls *tls, char text[MIG_TLS_EXPECTED_BYTES])
{
	text[0] = '\0';
	for (uint32_t i = 0; i < tls->peer_count && i < SHOWN_MAX; i++)
		put_name(text, (const unsigned char *)tls->peers[i], (int)strlen(tls->peers[i]));
	if (tls->peer_count > SHOWN_MAX)
		put(text, "...");
}

int mig_tls_verify(X509_STORE_CTX *store, void *context)
{
	const SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct mig_tls_stream *stream = SSL_get_app_data(ssl);
	X509 *cert = X509_STORE_CTX_get0_cert(store);
	char found[NAMES_BYTES];
	char expected[MIG_TLS_EXPECTED_BYTES];
	int is_good = X509_verify_cert(store);

	(void)context;
	stream->peer = is_good == 1 ? name_of(stream->tls, cert) : NULL;
	if (stream->peer != NULL)
		return 1;
	names_text(cert, found);
	mig_tls_expected(stream->tls, expected);
	if (is_good == 1) {
		X509_STORE_CTX_set_error(store, X509_V_ERR_HOSTNAME_MISMATCH);
		(void)base_fail(&stream->why, -EACCES,
				"TLS: certificate of %s: another host, expected %s", found,
				expected);
	} else {
		(void)base_fail(&stream->why, -EACCES,
				"TLS: certificate of %s: %s, expected a valid one of %s", found,
				X509_verify_cert_error_string(X509_STORE_CTX_get_error(store)),
				expected);
	}
	return 0;
}

/* --- what is spoken --- */

static int choose_alpn(SSL *ssl, const unsigned char **ret_name, unsigned char *ret_bytes,
		       const unsigned char *offered, unsigned int offered_bytes, void *context)
{
	unsigned char *name = NULL;

	(void)ssl;
	(void)context;
	if (SSL_select_next_proto(&name, ret_bytes, alpn, sizeof(alpn) - 1, offered,
				  offered_bytes) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*ret_name = name;
	return SSL_TLSEXT_ERR_OK;
}

/* Each time a message of TLS itself comes or goes. */
/* NOLINTNEXTLINE(readability-function-size): OpenSSL wants seven parameters */
static void on_message(int is_write, int version, int type, const void *bytes, size_t size_bytes,
		       SSL *ssl, void *context)
{
	struct mig_tls_stream *stream = SSL_get_app_data(ssl);

	(void)version;
	(void)bytes;
	(void)size_bytes;
	(void)context;
	if (is_write == 0 && type == SSL3_RT_HANDSHAKE && stream != NULL && stream->greeted)
		stream->strays++;
}

static bool set_up(SSL_CTX *context, bool is_source)
{
	int whom = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
	char groups[] = GROUPS; /* OpenSSL's macro takes it without const */

#ifdef GODWIT_MUTANT_MIG_TLS_CERT
	whom = SSL_VERIFY_PEER;
#endif
	SSL_CTX_set_security_level(context, SECURITY_LEVEL);
	SSL_CTX_set_options(context,
			    SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
	SSL_CTX_set_mode(context,
			 SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_max_cert_list(context, (long)MIG_TLS_CERTS_BYTES_MAX);
	SSL_CTX_set_verify_depth(context, CHAIN_DEPTH);
	SSL_CTX_set_verify(context, whom, NULL);
	SSL_CTX_set_cert_verify_callback(context, mig_tls_verify, NULL);
	SSL_CTX_set_msg_callback(context, on_message);
	if (!is_source)
		SSL_CTX_set_alpn_select_cb(context, choose_alpn, NULL);
	else if (SSL_CTX_set_alpn_protos(context, alpn, sizeof(alpn) - 1) != 0)
		return false;
	return SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 &&
	       SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) == 1 &&
	       SSL_CTX_set_ciphersuites(context, mig_tls_ciphers()) == 1 &&
	       SSL_CTX_set1_groups_list(context, groups) == 1 &&
	       SSL_CTX_set_num_tickets(context, 0) == 1;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool can_speak;

/* Without its file of settings, which may be out of reach, and is not what is promised. */
static void begin_openssl(void)
{
	can_speak =
		OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, NULL) == 1;
}

void mig_tls_begin(void)
{
	(void)pthread_once(&once, begin_openssl);
}

static int copy_peers(struct mig_tls *tls, const struct mig_tls_options *options,
		      struct base_error *err)
{
	struct base_error why = { 0 };

	base_assert(options->peer_count > 0 && options->peer_count <= MIG_TLS_PEERS_MAX);
	tls->peer_count = options->peer_count;
	for (uint32_t i = 0; i < options->peer_count; i++) {
		if (mig_tls_check_name(options->peers[i], &why) < 0)
			return base_fail(err, -EINVAL,
					 "TLS: name %" PRIu32 " of the other side: %s", i + 1,
					 why.text);
		(void)snprintf(tls->peers[i], sizeof(tls->peers[i]), "%s", options->peers[i]);
	}
	return 0;
}

int mig_tls_new(const struct mig_tls_options *options, struct mig_tls **ret_tls,
		struct base_error *err)
{
	struct mig_tls *tls = calloc(1, sizeof(*tls));
	int r = 0;

	if (tls == NULL)
		return base_fail(err, -ENOMEM, "TLS");
	mig_tls_begin();
	tls->is_source = options->is_source;
	r = copy_peers(tls, options, err);
	if (r == 0 && can_speak)
		tls->context =
			SSL_CTX_new(options->is_source ? TLS_client_method() : TLS_server_method());
	if (r == 0 && (tls->context == NULL || !set_up(tls->context, options->is_source)))
		r = base_fail(err, -ENOMEM, "TLS: OpenSSL gives no TLS 1.3");
	if (r == 0)
		r = mig_tls_files_load(tls->context, options->directory_fd, err);
	if (r < 0) {
		mig_tls_free(tls);
		return r;
	}
	*ret_tls = tls;
	return 0;
}

void mig_tls_free(struct mig_tls *tls)
{
	if (tls == NULL)
		return;
	SSL_CTX_free(tls->context);
	free(tls);
}
