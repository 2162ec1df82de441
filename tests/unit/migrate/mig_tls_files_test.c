/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a host has for TLS: files that are missing, damaged, open to others, or of no use.
 */
#include <openssl/pem.h>
#include <stdio.h>
#include <sys/stat.h>

#include "tests/support/alloc_fail.h"
#include "tests/unit/migrate/mig_tls_rig.h"

TestSuite(mig_tls_files, .init = setup, .fini = teardown, .timeout = 60);

static int opens(const char *folder)
{
	struct mig_tls *tls = NULL;
	int r = mig_tls_lab_open(&lab, folder, false, "a.example", &tls, &err);

	mig_tls_free(tls);
	return r;
}

static void spoil(const char *file, const char *content)
{
	char path[MIG_TLS_LAB_PATH_BYTES];
	FILE *to = NULL;

	mig_tls_lab_path(&lab, "b", file, path);
	to = fopen(path, "w");
	cr_assert_not_null(to);
	(void)fputs(content, to);
	(void)fclose(to);
}

Test(mig_tls_files, files_that_are_missing)
{
	static const char *const files[] = { "ca.pem", "cert.pem", "key.pem" };
	char path[MIG_TLS_LAB_PATH_BYTES];
	char text[64];

	for (size_t i = 0; i < 3; i++) {
		char folder[8];

		(void)snprintf(folder, sizeof(folder), "c%zu", i);
		host(folder, "DNS:b.example");
		mig_tls_lab_path(&lab, folder, files[i], path);
		cr_assert_eq(unlink(path), 0);
		cr_assert_eq(opens(folder), -ENOENT);
		(void)snprintf(text, sizeof(text), "TLS: file '%s': ", files[i]);
		has_text(&err, text);
		cr_assert_eq(mkdir(path, 0700), 0);
		cr_assert_eq(opens(folder), -EINVAL);
		has_text(&err, "expected a regular file");
		cr_assert_eq(rmdir(path), 0);
		cr_assert_eq(mkfifo(path, 0600), 0); /* nobody waits for it */
		cr_assert_eq(opens(folder), -EINVAL);
	}
}

Test(mig_tls_files, files_that_have_something_else)
{
	static const char *const files[] = { "ca.pem", "cert.pem", "key.pem", "crl.pem" };

	for (size_t i = 0; i < 4; i++) {
		teardown();
		setup();
		spoil(files[i], "nothing of the kind\n");
		cr_assert_eq(opens("b"), -EINVAL, "%s", files[i]);
		has_text(&err, "in PEM");
		spoil(files[i], "");
		cr_assert_eq(opens("b"), -EINVAL);
	}
}

Test(mig_tls_files, a_key_that_others_may_read)
{
	char path[MIG_TLS_LAB_PATH_BYTES];

	mig_tls_lab_path(&lab, "b", "key.pem", path);
	cr_assert_eq(chmod(path, 0644), 0);
	cr_assert_eq(opens("b"), -EPERM);
	has_text(&err, "file 'key.pem': mode 0644, expected nothing for others (0600 or 0640)");
	cr_assert_eq(chmod(path, 0620), 0);
	cr_assert_eq(opens("b"), -EPERM);
	cr_assert_eq(chmod(path, 0640), 0);
	cr_assert_eq(opens("b"), 0, "%s", err.text);
	if (geteuid() != 0)
		return;
	cr_assert_eq(chown(path, 12345, 0), 0);
	cr_assert_eq(opens("b"), -EPERM);
	has_text(&err, "owner 12345");
}

Test(mig_tls_files, a_key_of_another_certificate)
{
	char from[MIG_TLS_LAB_PATH_BYTES], to[MIG_TLS_LAB_PATH_BYTES];

	mig_tls_lab_path(&lab, "a", "key.pem", from);
	mig_tls_lab_path(&lab, "b", "key.pem", to);
	cr_assert_eq(rename(from, to), 0);
	cr_assert_eq(opens("b"), -EINVAL);
	has_text(&err, "expected the key of the certificate in 'cert.pem'");
}

Test(mig_tls_files, a_key_with_a_passphrase)
{
	char path[MIG_TLS_LAB_PATH_BYTES];
	EVP_PKEY *key = EVP_EC_gen("P-256");
	FILE *to = NULL;

	mig_tls_lab_path(&lab, "b", "key.pem", path);
	to = fopen(path, "w");
	cr_assert_not_null(to);
	cr_assert_eq(PEM_write_PrivateKey(to, key, EVP_aes_256_cbc(),
					  (const unsigned char *)"secret", 6, NULL, NULL),
		     1);
	(void)fclose(to);
	EVP_PKEY_free(key);
	cr_assert_eq(opens("b"), -EINVAL, "%s", err.text);
	has_text(&err, "without a passphrase");
}

Test(mig_tls_files, a_certificate_of_our_own_that_nobody_would_take)
{
	static const struct {
		struct mig_tls_lab_host host;
		const char *text;
	} bad[] = {
		{ { .folder = "c", .from_days = -3, .to_days = -1 }, "certificate has expired" },
		{ { .folder = "d", .of_other = true }, "signature failure" },
		{ { .folder = "e", .usage = "serverAuth" }, "unsuitable" },
		{ { .folder = "f", .usage = "clientAuth" }, "unsuitable" },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct mig_tls_lab_host made = bad[i].host;

		made.names = "DNS:b.example";
		mig_tls_lab_host(&lab, &made);
		cr_assert_eq(opens(made.folder), -EKEYEXPIRED, "%s: %s", made.folder, err.text);
		has_text(&err, bad[i].text);
	}
}

Test(mig_tls_files, names)
{
	static const char *const good[] = { "a",         "host-1.example", "A.B", "x_1",
					    "192.0.2.1", "2001:db8::1",    "::1", "1a" };
	static const char *const bad[] = { "",      ".",         "a.",       ".a",
					   "a..b",  "*.example", "-a",       "a-",
					   "a b",   "a/b",       "1.2.3",    "1",
					   "::1%1", "a\n",       "\xc3\xa4", "192.0.2.1:7011" };
	char longest[MIG_TLS_NAME_BYTES + 2];

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		cr_assert_eq(mig_tls_check_name(good[i], &err), 0, "%s", good[i]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cr_assert_eq(mig_tls_check_name(bad[i], &err), -EINVAL, "%s", bad[i]);
		has_text(&err, "expected a host's name");
	}
	memset(longest, 'a', sizeof(longest));
	for (size_t i = 50; i < sizeof(longest); i += 50)
		longest[i] = '.';
	longest[253] = '\0';
	cr_assert_eq(mig_tls_check_name(longest, &err), 0);
	longest[253] = 'a';
	longest[254] = '\0';
	cr_assert_eq(mig_tls_check_name(longest, &err), -EINVAL);
}

/* Ours; OpenSSL's own are not counted here. */
Test(mig_tls_files, no_memory)
{
	struct mig_tls_stream_options options = { .fd = fds[0] };
	struct mig_tls_stream *made = NULL;

	cr_assert_eq(mig_tls_lab_open(&lab, "a", true, "b.example", &source_tls, &err), 0);
	options.tls = source_tls;
	for (unsigned int k = 0; k < 3; k++) {
		alloc_fail_at(k);
		cr_assert_eq(mig_tls_stream_new(&options, &made, &err), -ENOMEM);
		cr_assert(alloc_fail_done());
		cr_assert_null(made);
	}
	alloc_fail_at(0);
	cr_assert_eq(mig_tls_lab_open(&lab, "b", false, "a", &destination_tls, &err), -ENOMEM);
	cr_assert(alloc_fail_done());
	mig_tls_free(NULL);
	mig_tls_stream_free(NULL);
}
