/* SPDX-License-Identifier: Apache-2.0 */
/* A migration as a page: what is read is checked, what is written is text and whole. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/cli_vm_priv.h"
#include "agent/report.h"
#include "base/cleanup.h"

#define REST "\"rounds\":[],\"marks\":[]"

static struct base_error err;
static char folder[] = "/tmp/godwit-report-XXXXXX";

static int decode(const char *text, struct report **ret_report)
{
	return report_decode(text, strlen(text), ret_report, &err);
}

static char *page_of(const char *text)
{
	BASE_FREE struct report *report = NULL;
	char *page = NULL;
	size_t bytes = 0;
	FILE *out = open_memstream(&page, &bytes);

	cr_assert_eq(decode(text, &report), 0, "%s", err.text);
	report_page(report, out);
	cr_assert_eq(fclose(out), 0);
	return page;
}

static void expect_sound(const char *page)
{
	static const char *const never[] = { "=\"nan", "=\"-nan", "=\"inf",  "Vnan",
					     "Hnan",   "<script", "https://" };

	for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++)
		cr_assert_null(strstr(page, never[i]), "'%s'", never[i]);
	for (const char *at = strstr(page, "http:"); at != NULL; at = strstr(at + 1, "http:"))
		cr_assert_eq(strncmp(at, "http://www.w3.org/2000/svg\"", 27), 0, "loads nothing");
	cr_assert_not_null(strstr(page, "<svg id=\"timeline\""));
	cr_assert_not_null(strstr(page, "<title id=\"tt\">"));
	cr_assert_not_null(strstr(page, "<desc id=\"td\">"));
	cr_assert_not_null(strstr(page, "</html>\n"));
}

/* The first number behind each of @key is within 0 and @most. */
static void expect_within(const char *page, const char *key, double most)
{
	for (const char *at = strstr(page, key); at != NULL; at = strstr(at + 1, key)) {
		double value = strtod(at + strlen(key), NULL);

		cr_assert(value >= 0 && value <= most, "%.60s", at);
	}
}

static void expect_geometry(const char *page)
{
	static const char *const across[] = { " x=\"", " x1=\"", " x2=\"", "H" };
	static const char *const down[] = { " y=\"", " y1=\"", " y2=\"", "V" };
	const char *svg = strstr(page, "<svg");

	for (size_t i = 0; i < 4; i++) {
		expect_within(svg, across[i], 960);
		expect_within(svg, down[i], 650);
	}
}

/* --- what is refused --- */

Test(report, what_is_no_timeline_is_refused_with_a_line)
{
	static const struct {
		const char *text, *why;
	} cases[] = {
		{ "", "one JSON object" },
		{ "[]", "one JSON object" },
		{ "{\"form\":1,\"form\":1}", "one JSON object" },
		{ "{}", "'form'" },
		{ "{\"form\":2}", "'form'" },
		{ "{\"form\":1}", "'samples'" },
		{ "{\"form\":1,\"name\":7,\"samples\":[]," REST "}", "'name'" },
		{ "{\"form\":1,\"samples\":[[0,0,0,0,0]]," REST "}", "'samples'" },
		{ "{\"form\":1,\"samples\":[[0,0,0,0,-1,0]]," REST "}", "'samples'" },
		{ "{\"form\":1,\"samples\":[[0,0.5,0,0,0,0]]," REST "}", "'samples'" },
		{ "{\"form\":1,\"samples\":[[0,0,0,0,0,1001]]," REST "}", "'samples'" },
		{ "{\"form\":1,\"samples\":[[2,0,0,0,0,0],[1,0,0,0,0,0]]," REST "}",
		  "do not fall" },
		{ "{\"form\":1,\"samples\":[[1,9,0,0,0,0],[2,8,0,0,0,0]]," REST "}",
		  "do not fall" },
		{ "{\"form\":1,\"samples\":[],\"rounds\":[[5,0],[4,1]],\"marks\":[]}", "'rounds'" },
		{ "{\"form\":1,\"samples\":[],\"rounds\":[[5,4294967296]],\"marks\":[]}",
		  "'rounds'" },
		{ "{\"form\":1,\"samples\":[],\"rounds\":[],\"marks\":[1]}", "'marks'" },
		{ "{\"form\":1,\"samples\":[],\"rounds\":[],\"marks\":[{\"what\":"
		  "\"01234567890123456789012345678901\"}]}",
		  "'what'" },
		{ "{\"form\":1,\"samples\":[]," REST ",\"report\":1}", "'report'" },
		{ "{\"form\":1,\"samples\":[]," REST ",\"report\":{\"total_ns\":-1}}",
		  "'total_ns'" },
		{ "{\"form\":1,\"samples\":[]," REST ",\"report\":{\"postcopy\":1}}",
		  "'postcopy'" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct report *report = NULL;

		cr_assert_eq(decode(cases[i].text, &report), -EBADMSG, "%s", cases[i].text);
		cr_assert_not_null(strstr(err.text, cases[i].why), "%s: %s", cases[i].text,
				   err.text);
		cr_assert_null(strchr(err.text, '\n'));
		cr_assert_null(report);
	}
}

Test(report, more_than_a_page_can_show_is_refused)
{
	BASE_FREE char *text = NULL;
	size_t bytes = 0;
	FILE *out = open_memstream(&text, &bytes);
	struct report *report = NULL;

	(void)fputs("{\"form\":1," REST ",\"samples\":[[0,0,0,0,0,0]", out);
	for (uint32_t i = 0; i < REPORT_SAMPLES_MAX; i++)
		(void)fputs(",[0,0,0,0,0,0]", out);
	(void)fputs("]}", out);
	(void)fclose(out);
	cr_assert_eq(decode(text, &report), -EBADMSG);
	cr_assert_eq(report_decode(text, REPORT_BYTES_MAX + 1U, &report, &err), -EBADMSG);
}

/* --- pages --- */

Test(report, nothing_was_seen)
{
	BASE_FREE char *page = page_of("{\"form\":1,\"samples\":[]," REST "}");

	expect_sound(page);
	cr_assert_not_null(strstr(page, "too short to be watched"));
	cr_assert_not_null(strstr(page, "still under way"));
	cr_assert_not_null(strstr(page, "nothing sent"));
}

Test(report, one_sample_and_two_at_one_instant)
{
	BASE_FREE char *one = page_of("{\"form\":1,\"samples\":[[0,0,0,5,0,0]]," REST "}");
	BASE_FREE char *two =
		page_of("{\"form\":1,\"samples\":[[7,0,0,5,0,0],[7,90,10,5,2,0]]," REST
			",\"report\":null}");

	expect_sound(one);
	expect_sound(two);
	expect_geometry(two);
}

Test(report, huge_numbers_stay_within_the_drawing)
{
#define HUGE "9223372036854775807"
	BASE_FREE char *page = page_of(
		"{\"form\":1,\"samples\":[[0,0,0,0,0,0],[1," HUGE "," HUGE "," HUGE "," HUGE
		",1000],[" HUGE "," HUGE "," HUGE ",0," HUGE ",0]],\"rounds\":[[" HUGE
		",4294967295]],\"marks\":[{\"what\":\"cut\",\"at_ns\":" HUGE
		"},{\"what\":\"serving\",\"at_ns\":" HUGE "}],\"throttle_permille_most\":" HUGE
		",\"report\":{\"end\":\"moved\",\"total_ns\":1,\"queued_ns\":" HUGE
		",\"prepare_ns\":" HUGE ",\"copy_ns\":" HUGE ",\"blackout_ns\":" HUGE
		",\"pause_ns\":" HUGE ",\"commit_ns\":" HUGE ",\"pages\":" HUGE
		",\"lz4_pages\":1,\"sent_bytes\":" HUGE ",\"postcopy\":{\"wait_p99_ns\":" HUGE
		"}}}");

	expect_sound(page);
	expect_geometry(page);
}

Test(report, text_from_outside_is_text)
{
	BASE_FREE char *page = page_of(
		"{\"form\":1,\"name\":\"</title><script>x</script>&\\\"'\\u0007\\u202e\\u0085\","
		"\"from\":\"<img src=x>\",\"to\":\"<b>\",\"samples\":[],\"rounds\":[],"
		"\"marks\":[{\"what\":\"<svg>\",\"at_ns\":1}],"
		"\"report\":{\"end\":\"<i>\",\"text\":\"<u>why</"
		"u>\",\"tls\":{\"cipher\":\"<s>\"}}}");

	expect_sound(page);
	cr_assert_not_null(strstr(page,
				  "&lt;/title&gt;&lt;script&gt;x&lt;/script&gt;&amp;&quot;&#39;"
				  "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"));
	cr_assert_null(strstr(page, "<img"));
	cr_assert_null(strstr(page, "<u>"));
	cr_assert_null(strstr(page, "<s>"));
	cr_assert_not_null(strstr(page, "&lt;u&gt;why"));
}

Test(report, a_move_with_all_there_is)
{
	BASE_FREE char *page = page_of(
		"{\"form\":1,\"name\":\"web1\",\"samples\":[[0,0,0,9000,0,0],[1000000000,5000,0,"
		"4000,0,"
		"0],[2000000000,9000,4000,4000,0,250],[3000000000,13000,4000,0,7,0]],\"rounds\":[["
		"0,0],"
		"[2000000000,1]],\"marks\":[{\"what\":\"cut\",\"at_ns\":1},{\"what\":\"resumed\","
		"\"at_ns\":"
		"900},{\"what\":\"serving\",\"at_ns\":2500000000}],\"throttle_permille_most\":250,"
		"\"report\":{\"end\":\"moved\",\"total_ns\":3000000000,\"copy_ns\":2100000000,"
		"\"blackout_ns\":28000000,\"pause_ns\":1000000,\"last_round_ns\":2000000,\"state_"
		"ns\":"
		"3000000,\"let_go_ns\":4000000,\"check_ns\":5000000,\"commit_ns\":6000000,"
		"\"activate_ns\":7000000,\"rounds\":2,\"again_bytes\":2048,\"cuts\":1,\"postcopy\":"
		"{"
		"\"wait_p50_ns\":210000,\"wait_p99_ns\":1900000}}}");
	static const char *const parts[] = {
		"id=\"sent\"",
		"id=\"dirty\"",
		"id=\"left\"",
		"id=\"throttle\"",
		"id=\"faults\"",
		"class=\"blackout\"",
		"class=\"cut\"",
		"class=\"mk\"",
		"id=\"phases\"",
		"28.0 ms",
		"100.0 %",
		"210 µs",
		"1.9 ms",
		"2.00 KiB",
		"25.0 %",
		"round 1</title>",
		"id=\"phase-table\"",
		"id=\"bytes-table\"",
		"id=\"time-table\"",
		"id=\"post-table\"",
		"id=\"round-table\"",
	};

	expect_sound(page);
	expect_geometry(page);
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		cr_assert_not_null(strstr(page, parts[i]), "'%s'", parts[i]);
}

Test(report, figures_for_people)
{
	static const struct {
		uint64_t ns;
		const char *text;
	} times[] = {
		{ 0, "0 µs" },
		{ 1500, "1.5 µs" },
		{ 28000000, "28.0 ms" },
		{ 1500000000, "1.50 s" },
		{ 200 * UINT64_C(1000000000), "3 min 20 s" },
		{ 7500 * UINT64_C(1000000000), "2 h 05 min" },
	};
	char text[REPORT_SHOWN_BYTES];

	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
		report_show_ns(times[i].ns, text);
		cr_assert_str_eq(text, times[i].text);
	}
	report_show_ns(UINT64_MAX, text);
	report_show_bytes(1536, text);
	cr_assert_str_eq(text, "1.50 KiB");
	report_show_bytes(1e30, text);
}

/* --- the verb --- */

static void write_file(const char *path, const char *text)
{
	BASE_FCLOSE FILE *file = fopen(path, "w");

	cr_assert_not_null(file);
	(void)fputs(text, file);
}

static int run(const char *from, const char *to)
{
	const struct cli_vm_args args = { .from = from, .report = to };

	err.text[0] = '\0';
	return cli_vm_report(&args, &err);
}

Test(report, is_there_as_a_whole_or_not_at_all)
{
	struct stat there;

	cr_assert_not_null(mkdtemp(folder));
	cr_assert_eq(chdir(folder), 0);
	write_file("good.json", "{\"form\":1,\"samples\":[]," REST "}");
	write_file("bad.json", "{\"form\":1}");
	cr_assert_eq(run("good.json", "page.html"), 0, "%s", err.text);
	cr_assert_eq(run("good.json", "page.html"), 0, "an older one is replaced");
	cr_assert_eq(stat("page.html", &there), 0);
	cr_assert_eq(run("bad.json", "other.html"), -EBADMSG);
	cr_assert_neq(stat("other.html", &there), 0);
	cr_assert_eq(symlink("page.html", "link.html"), 0);
	cr_assert_eq(run("good.json", "link.html"), -EEXIST);
	cr_assert_eq(run("good.json", "/dev/null"), -EEXIST);
	cr_assert_eq(run("good.json", "none/page.html"), -ENOENT);
	cr_assert_eq(run("none.json", "page.html"), -ENOENT);
	cr_assert_not_null(strstr(err.text, "none.json"));
	for (size_t i = 0; i < 4; i++)
		(void)unlink((const char *const[]){ "good.json", "bad.json", "page.html",
						    "link.html" }[i]);
	cr_assert_eq(chdir("/"), 0);
	cr_assert_eq(rmdir(folder), 0, "nothing else was left");
}

Test(report, what_the_verb_refuses)
{
	static const struct cli_vm_args cases[] = {
		{ .report = "a" },
		{ .report = "a", .from = "b", .control = "c" },
		{ .from = "b" },
		{ .report = "a", .from = "b", .wait = true },
	};
	struct cli_vm_args nobody = { .control = "/none", .report = "a" };

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		cr_assert_eq(cli_vm_report(&cases[i], &err), -EINVAL, "%zu", i);
	cr_assert_eq(cli_vm_report(&nobody, &err), -ENOENT, "%s", err.text);
	cr_assert_not_null(strstr(err.text, "control socket '/none'"));
}
