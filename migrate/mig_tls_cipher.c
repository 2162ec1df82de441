/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which cipher a source asks for first: the one of the two strong ones that this processor does
 * faster.  With instructions for AES that is AES-GCM, without them ChaCha20 by far.
 */
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "migrate/mig_tls_priv.h"

#define AES_256 "TLS_AES_256_GCM_SHA384"
#define AES_128 "TLS_AES_128_GCM_SHA256"
#define CHACHA  "TLS_CHACHA20_POLY1305_SHA256"

#define TRY_RECORDS 8u /* some 50 us each time */
#define TRIES       16

/* Nanoseconds of processor for some records; UINT64_MAX: it cannot. */
static uint64_t time_once(EVP_CIPHER_CTX *context, uint8_t *record)
{
	uint64_t begin_ns = base_thread_cpu_ns();

	for (uint32_t i = 0; i < TRY_RECORDS; i++) {
		uint8_t tag[16];
		uint8_t number[12] = { (uint8_t)i };
		int bytes = 0;

		if (EVP_EncryptInit_ex(context, NULL, NULL, NULL, number) != 1 ||
		    EVP_EncryptUpdate(context, record, &bytes, record, MIG_TLS_RECORD_BYTES) != 1 ||
		    EVP_EncryptFinal_ex(context, record, &bytes) != 1 ||
		    EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, sizeof(tag), tag) != 1)
			return UINT64_MAX;
	}
	return base_thread_cpu_ns() - begin_ns;
}

/* The least of several: wide vectors take a moment until they run at their speed. */
static uint64_t time_of(const EVP_CIPHER *cipher)
{
	static const uint8_t key[32] = { 1 };
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	uint8_t *record = calloc(1, MIG_TLS_RECORD_BYTES);
	bool can = context != NULL && record != NULL &&
		   EVP_EncryptInit_ex(context, cipher, NULL, key, NULL) == 1;
	uint64_t least_ns = UINT64_MAX;

	for (int i = 0; can && i < TRIES; i++) {
		uint64_t took_ns = time_once(context, record);

		least_ns = took_ns < least_ns ? took_ns : least_ns;
	}
	free(record);
	EVP_CIPHER_CTX_free(context);
	return least_ns;
}

static const char *order;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void measure(void)
{
	uint64_t aes_ns = time_of(EVP_aes_256_gcm());
	uint64_t chacha_ns = time_of(EVP_chacha20_poly1305());

	/* AES unless the other one is clearly better. */
	order = chacha_ns < aes_ns - aes_ns / 8 ? CHACHA ":" AES_256 ":" AES_128
						: AES_256 ":" AES_128 ":" CHACHA;
}

const char *mig_tls_ciphers(void)
{
	(void)pthread_once(&once, measure);
	return order;
}
