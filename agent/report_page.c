/* SPDX-License-Identifier: Apache-2.0 */
/* A migration as one page: no script, nothing loaded, light and dark. */
#include <inttypes.h>
#include <string.h>

#include "agent/report.h"

#define PAGE_BYTES 4096.0

static const char head[] =
	"<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
	"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
	"'unsafe-inline'\">\n"
	"<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
	"<meta name=\"color-scheme\" content=\"light dark\">\n<style>\n"
	":root{--bg:#fbfbfa;--fg:#1d2327;--dim:#5c666e;--gr:#e4e6e8;--ax:#9aa3aa;--card:#fff;"
	"--sent:#1f6feb;--dirty:#c2570c;--left:#0f766e;--thr:#7c3aed;--flt:#be185d;--black:#d1242f;"
	"--cut:#8a6d00}\n"
	"@media (prefers-color-scheme:dark){:root{--bg:#14181c;--fg:#e3e7ea;--dim:#98a3ab;"
	"--gr:#2a3138;--ax:#5d6870;--card:#1b2127;--sent:#62a0ff;--dirty:#f59e4b;--left:#3fc1b0;"
	"--thr:#b794f6;--flt:#f472b6;--black:#ff6b6b;--cut:#d4b03a}}\n"
	"*{box-sizing:border-box}body{margin:0 auto;padding:28px 24px 48px;max-width:1040px;"
	"background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}\n"
	"h1{font-size:24px;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}"
	"h2{font-size:17px;margin:30px 0 8px}p{margin:4px 0;overflow-wrap:anywhere}"
	".dim{color:var(--dim)}\n"
	".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:12px;"
	"margin:20px 0}.tiles div{background:var(--card);border:1px solid var(--gr);"
	"border-radius:8px;padding:10px 14px}.tiles b{display:block;font-size:21px;font-weight:600}"
	".tiles span{color:var(--dim);font-size:13px}\n"
	"svg{display:block;width:100%;height:auto}svg text{font:12px system-ui,sans-serif;"
	"fill:var(--dim)}svg .t{fill:var(--fg);font-weight:600}svg .none{font-style:italic}"
	"svg .rt{font-size:10px}svg .bt{fill:var(--black);font-weight:600}\n"
	".gr{stroke:var(--gr)}.ax{stroke:var(--ax)}.rd{stroke:var(--ax)}"
	".mk{stroke:var(--flt);stroke-dasharray:4 3;stroke-width:1.5}.hit{fill:transparent}"
	".hit:hover{fill:var(--fg);fill-opacity:.1}\n"
	".line{fill:none;stroke-width:1.8;stroke-linejoin:round}.line.sent{stroke:var(--sent)}"
	".line.dirty{stroke:var(--dirty)}.key.sent{fill:var(--sent)}.key.dirty{fill:var(--dirty)}"
	".area{fill-opacity:.22;stroke-width:1.5}.area.left{fill:var(--left);stroke:var(--left)}"
	".area.throttle{fill:var(--thr);stroke:var(--thr)}.area.faults{fill:var(--flt);"
	"stroke:var(--flt)}\n"
	".blackout{fill:var(--black);fill-opacity:.3}.cut{fill:var(--cut);fill-opacity:.25}\n"
	".p0{fill:#5b6b7a}.p1{fill:#1f6feb}.p2{fill:#0f766e}.p3{fill:#7c3aed}.p4{fill:#c2570c}"
	".p5{fill:#be185d}.p6{fill:#4d7c0f}svg .pt{fill:#fff;font-weight:600}\n"
	"i.sw{display:inline-block;width:11px;height:11px;border-radius:2px;margin-right:8px}"
	"i.p0{background:#5b6b7a}i.p1{background:#1f6feb}i.p2{background:#0f766e}"
	"i.p3{background:#7c3aed}i.p4{background:#c2570c}i.p5{background:#be185d}"
	"i.p6{background:#4d7c0f}\n"
	".wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:"
	"tabular-nums}th,td{text-align:left;padding:5px 10px;border-bottom:1px solid var(--gr)}"
	"th{color:var(--dim);font-weight:500}td.n,th.n{text-align:right;white-space:nowrap}"
	"tr.sum td{font-weight:600;border-bottom:0}summary{cursor:pointer;margin-top:26px;"
	"font-size:17px;font-weight:600}\n"
	"</style>\n";

static void tile(FILE *out, const char *value, const char *label)
{
	(void)fprintf(out, "<div><b>%s</b><span>%s</span></div>\n", value, label);
}

static const char *ending(const struct report *report)
{
	static const struct {
		const char *end, *text;
	} endings[] = {
		{ "moved", "It moved: it runs there." },
		{ "cancelled", "It was cancelled: it runs where it was." },
		{ "failed", "It failed: it runs where it was." },
		{ "stale", "Another node was given it." },
		{ "dry-run", "A dry run: nothing was moved." },
	};

	for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++)
		if (strcmp(report->end, endings[i].end) == 0)
			return endings[i].text;
	return report->end[0] == '\0' ? "It is still under way." : "It has ended.";
}

static void put_head(const struct report *report, FILE *out)
{
	(void)fputs(head, out);
	(void)fputs("<title>Migration of ", out);
	report_escape(out, report->name);
	(void)fputs("</title>\n</head>\n<body>\n<h1>Migration of ", out);
	report_escape(out, report->name);
	(void)fputs("</h1>\n<p class=\"dim\">from ", out);
	report_escape(out, report->from);
	(void)fputs(" to ", out);
	report_escape(out, report->to);
	if (report->cipher[0] != '\0') {
		(void)fputs(", under TLS with ", out);
		report_escape(out, report->cipher);
	}
	(void)fprintf(out, "</p>\n<p id=\"end\">%s ", ending(report));
	report_escape(out, report->why);
	(void)fputs("</p>\n", out);
}

static void put_tiles(const struct report *report, FILE *out)
{
	const struct report_figures *figures = &report->figures;
	const struct mig_timeline_sample none = { 0 };
	const struct mig_timeline_sample *last =
		report->sample_count > 0 ? &report->samples[report->sample_count - 1] : &none;
	bool is_over = report->end[0] != '\0';
	char text[REPORT_SHOWN_BYTES];

	(void)fputs("<div class=\"tiles\">\n", out);
	report_show_ns(is_over ? figures->total_ns : last->at_ns, text);
	tile(out, text, is_over ? "in all" : "so far");
	report_show_ns(figures->blackout_ns, text);
	tile(out, is_over ? text : "none yet", "blackout");
	report_show_bytes((double)(is_over ? figures->sent_bytes : last->sent_bytes), text);
	tile(out, text, "sent");
	(void)snprintf(text, sizeof(text), "%" PRIu64,
		       is_over ? figures->rounds
		       : report->round_count > 0
			       ? report->rounds[report->round_count - 1].number + UINT64_C(1)
			       : 0);
	tile(out, text, "rounds");
	(void)snprintf(text, sizeof(text), "%.1f %%", (double)report->throttle_permille_most / 10);
	tile(out, report->throttle_permille_most > 1000 ? "?" : text, "throttle at most");
	(void)snprintf(text, sizeof(text), "%" PRIu64, last->fault_pages);
	tile(out, text, "faults served");
	(void)fputs("</div>\n", out);
}

static void put_phases(const struct report *report, FILE *out)
{
	const struct report_figures *figures = &report->figures;
	double sum = 0;
	char text[REPORT_SHOWN_BYTES];

	(void)fputs("<h2>Blackout</h2>\n", out);
	for (uint32_t i = 0; i < REPORT_PHASES; i++)
		sum += (double)figures->phase_ns[i];
	if (figures->blackout_ns == 0 || sum <= 0) {
		(void)fputs("<p class=\"dim\">The guest has not stood still.</p>\n", out);
		return;
	}
	report_chart_blackout(report, out);
	(void)fputs("<div class=\"wide\"><table id=\"phase-table\"><tr><th>phase<th "
		    "class=\"n\">time<th class=\"n\">share</tr>\n",
		    out);
	for (uint32_t i = 0; i < REPORT_PHASES; i++) {
		report_show_ns(figures->phase_ns[i], text);
		(void)fprintf(out,
			      "<tr><td><i class=\"sw p%" PRIu32 "\"></i>%s<td class=\"n\">%s<td "
			      "class=\"n\">%.1f %%</tr>\n",
			      i, report_phase_names[i], text,
			      100 * (double)figures->phase_ns[i] / sum);
	}
	report_show_ns(figures->blackout_ns, text);
	(void)fprintf(out,
		      "<tr class=\"sum\"><td>blackout, from the order to pause until it runs<td "
		      "class=\"n\">%s<td class=\"n\">%.1f %%</tr></table></div>\n",
		      text, 100 * (double)figures->blackout_ns / sum);
}

static void row(FILE *out, const char *what, const char *count, double bytes)
{
	char text[REPORT_SHOWN_BYTES];

	report_show_bytes(bytes, text);
	(void)fprintf(out, "<tr><td>%s<td class=\"n\">%s<td class=\"n\">%s</tr>\n", what, count,
		      text);
}

static void row_pages(FILE *out, const char *what, uint64_t pages, double bytes)
{
	char text[REPORT_SHOWN_BYTES];

	(void)snprintf(text, sizeof(text), "%" PRIu64 " pages", pages);
	row(out, what, text, bytes);
}

static void put_bytes(const struct report *report, FILE *out)
{
	const struct report_figures *figures = &report->figures;
	uint64_t whole =
		figures->pages > figures->lz4_pages ? figures->pages - figures->lz4_pages : 0;
	char text[REPORT_SHOWN_BYTES];

	(void)fputs(
		"<h2>What was sent</h2>\n<div class=\"wide\"><table id=\"bytes-table\"><tr><th>kind"
		"<th class=\"n\">count<th class=\"n\">bytes</tr>\n",
		out);
	row_pages(out, "memory, as it is", whole, (double)whole * PAGE_BYTES);
	row_pages(out, "memory, compressed", figures->lz4_pages, (double)figures->lz4_bytes);
	row_pages(out, "memory, zeros: named only", figures->zero_pages, 0);
	row(out, "device state", "", (double)figures->state_bytes);
	(void)snprintf(text, sizeof(text), "%" PRIu64 " cut%s", figures->cuts,
		       figures->cuts == 1 ? "" : "s");
	row(out, "of it twice, because a connection broke", text, (double)figures->again_bytes);
	(void)snprintf(text, sizeof(text), "%" PRIu64 " round%s", figures->rounds,
		       figures->rounds == 1 ? "" : "s");
	row(out, "in all, with disks and headers", text, (double)figures->sent_bytes);
	(void)fputs("</table></div>\n", out);
}

static void row_ns(FILE *out, const char *what, uint64_t ns)
{
	char text[REPORT_SHOWN_BYTES];

	report_show_ns(ns, text);
	(void)fprintf(out, "<tr><td>%s<td class=\"n\">%s</tr>\n", what, text);
}

static void row_count(FILE *out, const char *what, uint64_t count)
{
	(void)fprintf(out, "<tr><td>%s<td class=\"n\">%" PRIu64 "</tr>\n", what, count);
}

static void put_times(const struct report *report, FILE *out)
{
	const struct report_figures *figures = &report->figures;

	(void)fputs("<h2>Where the time went</h2>\n<div class=\"wide\"><table id=\"time-table\">\n",
		    out);
	row_ns(out, "waiting for its turn", figures->queued_ns);
	row_ns(out, "connecting, and checking what stands against it", figures->prepare_ns);
	row_ns(out, "copying while the guest runs", figures->copy_ns);
	row_ns(out, "of it without a connection", figures->cut_ns);
	row_ns(out, "blackout", figures->blackout_ns);
	if (figures->is_post)
		row_ns(out, "pages that followed when the guest ran", figures->postcopy_ns);
	row_ns(out, "in all", figures->total_ns);
	(void)fputs("</table></div>\n", out);
	if (!figures->is_post)
		return;
	(void)fputs("<h2>Pages that followed</h2>\n<div class=\"wide\"><table id=\"post-table\">\n",
		    out);
	row_count(out, "pages owed", figures->owed_pages);
	row_count(out, "pages that came because somebody waited", figures->fault_pages);
	row_count(out, "pages that came without", figures->rest_pages);
	row_count(out, "waits", figures->waits);
	row_ns(out, "half of the waits took at most (p50)", figures->wait_p50_ns);
	row_ns(out, "99 of 100 took at most (p99)", figures->wait_p99_ns);
	row_ns(out, "the longest", figures->wait_longest_ns);
	(void)fputs("</table></div>\n", out);
}

/* The newest sample that is not later. */
static struct mig_timeline_sample at(const struct report *report, uint64_t at_ns)
{
	struct mig_timeline_sample found = { 0 };

	for (uint32_t i = 0; i < report->sample_count && report->samples[i].at_ns <= at_ns; i++)
		found = report->samples[i];
	return found;
}

static void put_rounds(const struct report *report, FILE *out)
{
	if (report->round_count == 0)
		return;
	(void)fputs(
		"<details><summary>Rounds</summary>\n<div class=\"wide\"><table id=\"round-table\">"
		"<tr><th>round<th class=\"n\">began at<th class=\"n\">remaining<th "
		"class=\"n\">sent until then</tr>\n",
		out);
	for (uint32_t i = 0; i < report->round_count; i++) {
		struct mig_timeline_sample sample = at(report, report->rounds[i].at_ns);
		char when[REPORT_SHOWN_BYTES];
		char left[REPORT_SHOWN_BYTES];
		char sent[REPORT_SHOWN_BYTES];

		report_show_ns(report->rounds[i].at_ns, when);
		report_show_bytes((double)sample.left_bytes, left);
		report_show_bytes((double)sample.sent_bytes, sent);
		(void)fprintf(out,
			      "<tr><td>%" PRIu32
			      "<td class=\"n\">%s<td class=\"n\">%s<td class=\"n\">%s</tr>\n",
			      report->rounds[i].number, when, left, sent);
	}
	(void)fputs("</table></div></details>\n", out);
}

void report_page(const struct report *report, FILE *out)
{
	put_head(report, out);
	put_tiles(report, out);
	(void)fputs("<h2>Over time</h2>\n", out);
	if (report->sample_count < 2)
		(void)fputs("<p class=\"dim\">It was too short to be watched.</p>\n", out);
	report_chart_timeline(report, out);
	put_phases(report, out);
	if (report->end[0] != '\0') {
		put_bytes(report, out);
		put_times(report, out);
	}
	put_rounds(report, out);
	if (report->lost_marks > 0)
		(void)fprintf(out,
			      "<p class=\"dim\">%" PRIu64 " cuts more than can be shown.</p>\n",
			      report->lost_marks);
	(void)fputs("</body>\n</html>\n", out);
}
