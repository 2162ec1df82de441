/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The drawings of a report page: panels over one axis of time, and the blackout in its phases.
 *
 * Numbers are those of a report that was decoded; everything that is drawn lies within the drawing
 * whatever they are.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "agent/report.h"

#define WIDTH    960.0
#define LEFT     84.0
#define RIGHT    14.0
#define PLOT     (WIDTH - LEFT - RIGHT)
#define TOP      40.0
#define GAP      34.0
#define BOTTOM   44.0
#define BINS     240u
#define TICKS    5.0
#define LABEL_PX 26.0 /* between the numbers of rounds */

/* A stretch of time, and what happened in it. */
struct bin {
	uint64_t from_ns, to_ns;
	double sent_per_s, dirty_per_s, faults_per_s;
	uint64_t left_bytes;
	uint32_t throttle_permille;
};

struct chart {
	const struct report *report;
	FILE *out;
	double total_s;
	uint32_t bin_count;
	struct bin bins[BINS + 1];
};

struct panel {
	const char *id, *title;
	double top, height, most;
	double (*value)(const struct bin *bin);
	bool is_area;
	const char *empty; /* what is said where there is nothing to draw */
};

/* --- figures --- */

static double seconds(uint64_t ns)
{
	return (double)ns / 1e9;
}

static double blackout_at_ns(const struct report_figures *figures)
{
	return (double)figures->queued_ns + (double)figures->prepare_ns + (double)figures->copy_ns;
}

static double x_of(const struct chart *chart, double at_s)
{
	double part = at_s / chart->total_s;

	return LEFT + PLOT * (part < 0 ? 0 : part > 1 ? 1 : part);
}

static double per_s(uint64_t from, uint64_t to, uint64_t ns)
{
	return ns > 0 ? (double)(to - from) / seconds(ns) : 0;
}

/* What a harvest names was written since the one before: spread over that time. */
static void spread_dirty(struct chart *chart)
{
	const struct report *report = chart->report;
	uint32_t bin = 0;
	uint32_t before = 0;

	for (uint32_t i = 1; i < report->sample_count; i++) {
		const struct mig_timeline_sample *from = &report->samples[before];
		const struct mig_timeline_sample *to = &report->samples[i];
		double rate = per_s(from->dirty_bytes, to->dirty_bytes, to->at_ns - from->at_ns);

		if (to->dirty_bytes == from->dirty_bytes || to->at_ns == from->at_ns)
			continue;
		while (bin < chart->bin_count && chart->bins[bin].from_ns < to->at_ns)
			chart->bins[bin++].dirty_per_s = rate;
		before = i;
	}
}

static void make_bins(struct chart *chart)
{
	const struct report *report = chart->report;
	const struct mig_timeline_sample *last = &report->samples[report->sample_count - 1];
	uint64_t step_ns = last->at_ns / BINS;
	uint32_t before = 0;
	uint32_t throttle = 0;

	for (uint32_t i = 1; i < report->sample_count && chart->bin_count < BINS + 1; i++) {
		const struct mig_timeline_sample *from = &report->samples[before];
		const struct mig_timeline_sample *to = &report->samples[i];
		uint64_t took_ns = to->at_ns - from->at_ns;

		throttle = to->throttle_permille > throttle ? to->throttle_permille : throttle;
		if (took_ns == 0 || (took_ns < step_ns && i + 1 < report->sample_count))
			continue;
		chart->bins[chart->bin_count++] = (struct bin){
			.from_ns = from->at_ns,
			.to_ns = to->at_ns,
			.sent_per_s = per_s(from->sent_bytes, to->sent_bytes, took_ns),
			.faults_per_s = per_s(from->fault_pages, to->fault_pages, took_ns),
			.left_bytes = to->left_bytes,
			.throttle_permille = throttle,
		};
		before = i;
		throttle = 0;
	}
	spread_dirty(chart);
}

static void chart_init(struct chart *chart, const struct report *report, FILE *out)
{
	double last_s = 0;
	double end_s = seconds(report->figures.total_ns);

	memset(chart, 0, sizeof(*chart));
	chart->report = report;
	chart->out = out;
	if (report->sample_count > 0) {
		last_s = seconds(report->samples[report->sample_count - 1].at_ns);
		make_bins(chart);
	}
	chart->total_s = end_s > last_s ? end_s : last_s;
	if (chart->total_s <= 0)
		chart->total_s = 1;
}

static double sent_of(const struct bin *bin)
{
	return bin->sent_per_s;
}

static double dirty_of(const struct bin *bin)
{
	return bin->dirty_per_s;
}

static double left_of(const struct bin *bin)
{
	return (double)bin->left_bytes;
}

static double throttle_of(const struct bin *bin)
{
	return (double)bin->throttle_permille / 10;
}

static double faults_of(const struct bin *bin)
{
	return bin->faults_per_s;
}

static double most_of(const struct chart *chart, double (*value)(const struct bin *bin))
{
	double most = 0;

	for (uint32_t i = 0; i < chart->bin_count; i++)
		most = fmax(most, value(&chart->bins[i]));
	return most;
}

/* --- axes --- */

/* 1, 2 or 5 times a power of ten, so that about TICKS of them reach @most. */
static double nice_step(double most)
{
	double raw = most / TICKS;
	double power = pow(10, floor(log10(raw)));
	double lead = raw / power;

	return power * (lead <= 1 ? 1 : lead <= 2 ? 2 : lead <= 5 ? 5 : 10);
}

/* The same in the unit that bytes are shown in. */
static double nice_bytes(double most)
{
	double unit = 1;

	while (most / unit >= 1024)
		unit *= 1024;
	return fmax(nice_step(most / unit) * unit, 1);
}

static void label_bytes(double value, bool per_second, char ret_text[REPORT_SHOWN_BYTES])
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	size_t unit = 0;

	while (value >= 1024 && unit < 6) {
		value /= 1024;
		unit++;
	}
	(void)snprintf(ret_text, REPORT_SHOWN_BYTES, "%.4g %s%s", value, units[unit],
		       per_second ? "/s" : "");
}

static void panel_label(const struct panel *panel, double value, char ret_text[REPORT_SHOWN_BYTES])
{
	if (panel->value == throttle_of)
		(void)snprintf(ret_text, REPORT_SHOWN_BYTES, "%.3g %%", value);
	else if (panel->value == faults_of)
		(void)snprintf(ret_text, REPORT_SHOWN_BYTES, "%.4g/s", value);
	else
		label_bytes(value, panel->value == sent_of, ret_text);
}

static double y_of(const struct panel *panel, double value)
{
	double part = panel->most > 0 ? value / panel->most : 0;

	return panel->top + panel->height * (1 - (part < 0 ? 0 : part > 1 ? 1 : part));
}

static void draw_frame(const struct chart *chart, struct panel *panel)
{
	FILE *out = chart->out;
	bool is_bytes = panel->value == sent_of || panel->value == left_of;
	double step = 0;
	char text[REPORT_SHOWN_BYTES];

	(void)fprintf(out, "<text class=\"t\" x=\"%.0f\" y=\"%.1f\">%s</text>\n", LEFT,
		      panel->top - 9, panel->title);
	(void)fprintf(out, "<line class=\"ax\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n",
		      LEFT, WIDTH - RIGHT, panel->top + panel->height, panel->top + panel->height);
	if (panel->most <= 0) {
		(void)fprintf(out,
			      "<text class=\"none\" x=\"%.1f\" y=\"%.1f\" "
			      "text-anchor=\"middle\">%s</text>\n",
			      LEFT + PLOT / 2, panel->top + panel->height / 2 + 4, panel->empty);
		return;
	}
	step = is_bytes ? nice_bytes(panel->most) : nice_step(panel->most);
	if (panel->height < 80)
		step *= 2;
	panel->most = step * ceil(panel->most / step);
	for (uint32_t i = 0; i <= (uint32_t)(panel->most / step + 0.01); i++) {
		double value = i * step;

		panel_label(panel, value, text);
		(void)fprintf(out,
			      "<line class=\"gr\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>"
			      "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
			      LEFT, WIDTH - RIGHT, y_of(panel, value), y_of(panel, value), LEFT - 8,
			      y_of(panel, value) + 4, text);
	}
}

static void label_time(double at_s, double step_s, char ret_text[REPORT_SHOWN_BYTES])
{
	if (step_s < 0.2)
		(void)snprintf(ret_text, REPORT_SHOWN_BYTES, "%.6g ms", at_s * 1e3);
	else if (step_s < 60)
		(void)snprintf(ret_text, REPORT_SHOWN_BYTES, "%.5g s", at_s);
	else if (step_s < 3600)
		(void)snprintf(ret_text, REPORT_SHOWN_BYTES, "%.5g min", at_s / 60);
	else
		(void)snprintf(ret_text, REPORT_SHOWN_BYTES, "%.5g h", at_s / 3600);
}

static void draw_time(const struct chart *chart, double y)
{
	double unit = chart->total_s >= 3 * 3600 ? 3600 : chart->total_s >= 300 ? 60 : 1;
	double step = nice_step(chart->total_s * 0.6 / unit) * unit; /* 8 or so */
	char text[REPORT_SHOWN_BYTES];

	for (uint32_t i = 0; i <= (uint32_t)(chart->total_s / step + 0.01); i++) {
		double at = i * step;
		double x = x_of(chart, at);

		label_time(at, step, text);
		(void)fprintf(chart->out,
			      "<line class=\"ax\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>"
			      "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n",
			      x, x, y, y + 5, x, y + 18, x > WIDTH - 50 ? "end" : "middle", text);
	}
	(void)fprintf(chart->out,
		      "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">time since the "
		      "migration began</text>\n",
		      LEFT + PLOT / 2, y + 36);
}

/* --- what happened --- */

static void draw_line(const struct chart *chart, const struct panel *panel, const char *id,
		      double (*value)(const struct bin *bin))
{
	FILE *out = chart->out;
	double base = panel->top + panel->height;

	if (chart->bin_count == 0 || panel->most <= 0)
		return;
	(void)fprintf(out, "<path id=\"%s\" class=\"%s%s\" d=\"M%.1f %.1f", id, id,
		      panel->is_area ? " area" : " line", x_of(chart, 0), base);
	for (uint32_t i = 0; i < chart->bin_count; i++)
		(void)fprintf(out, "H%.1fV%.1fH%.1f", x_of(chart, seconds(chart->bins[i].from_ns)),
			      y_of(panel, value(&chart->bins[i])),
			      x_of(chart, seconds(chart->bins[i].to_ns)));
	(void)fprintf(out, "V%.1f%s\"/>\n", base, panel->is_area ? "Z" : "");
}

static void draw_band(const struct chart *chart, const char *class, double from_s, double to_s,
		      double bottom, const char *title)
{
	double from = x_of(chart, from_s);
	double wide = fmax(x_of(chart, to_s) - from, 2);

	if (from + wide > WIDTH - RIGHT)
		from = WIDTH - RIGHT - wide;
	(void)fprintf(chart->out,
		      "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\">"
		      "<title>%s</title></rect>\n",
		      class, from, TOP, wide, bottom - TOP, title);
}

static void draw_blackout(const struct chart *chart, double bottom)
{
	const struct report_figures *figures = &chart->report->figures;
	double from_s = blackout_at_ns(figures) / 1e9;
	double x = x_of(chart, from_s);
	char text[REPORT_SHOWN_BYTES];
	char title[REPORT_SHOWN_BYTES + 32];

	if (figures->blackout_ns == 0)
		return;
	report_show_ns(figures->blackout_ns, text);
	(void)snprintf(title, sizeof(title), "blackout, %s", text);
	draw_band(chart, "blackout", from_s, from_s + seconds(figures->blackout_ns), bottom, title);
	(void)fprintf(chart->out,
		      "<text class=\"bt\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x,
		      12.0, x > WIDTH / 2 ? "end" : "start", title);
}

static void draw_marks(const struct chart *chart, double bottom)
{
	const struct report *report = chart->report;
	double cut_s = -1;

	for (uint32_t i = 0; i < report->mark_count; i++) {
		const struct report_mark *mark = &report->marks[i];
		double at_s = seconds(mark->at_ns);

		if (strcmp(mark->what, "cut") == 0) {
			cut_s = at_s;
		} else if (strcmp(mark->what, "resumed") == 0 && cut_s >= 0) {
			draw_band(chart, "cut", cut_s, at_s, bottom, "no connection");
			cut_s = -1;
		} else if (strcmp(mark->what, "serving") == 0) {
			double x = x_of(chart, at_s);

			(void)fprintf(chart->out,
				      "<line class=\"mk\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" "
				      "y2=\"%.1f\"><title>the guest runs there, pages "
				      "follow</title></line>\n",
				      x, x, TOP, bottom);
		}
	}
	if (cut_s >= 0)
		draw_band(chart, "cut", cut_s, chart->total_s, bottom, "no connection");
}

static void draw_rounds(const struct chart *chart)
{
	const struct report *report = chart->report;
	double free_x = 0;

	for (uint32_t i = 0; i < report->round_count; i++) {
		double x = x_of(chart, seconds(report->rounds[i].at_ns));

		(void)fprintf(chart->out,
			      "<line class=\"rd\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\">"
			      "<title>round %" PRIu32 "</title></line>\n",
			      x, x, TOP - 6, TOP, report->rounds[i].number);
		if (x < free_x || x > WIDTH - LABEL_PX)
			continue;
		(void)fprintf(chart->out,
			      "<text class=\"rt\" x=\"%.1f\" y=\"%.1f\">%" PRIu32 "</text>\n",
			      x + 2, TOP - 2, report->rounds[i].number);
		free_x = x + LABEL_PX;
	}
}

/* A column for each stretch, which says its figures to who points at it. */
static void draw_columns(const struct chart *chart, double bottom)
{
	char sent[REPORT_SHOWN_BYTES];
	char dirty[REPORT_SHOWN_BYTES];
	char left[REPORT_SHOWN_BYTES];
	char at[REPORT_SHOWN_BYTES];

	for (uint32_t i = 0; i < chart->bin_count; i++) {
		const struct bin *bin = &chart->bins[i];
		double from = x_of(chart, seconds(bin->from_ns));

		report_show_ns(bin->to_ns, at);
		report_show_bytes(bin->sent_per_s, sent);
		report_show_bytes(bin->dirty_per_s, dirty);
		report_show_bytes((double)bin->left_bytes, left);
		(void)fprintf(chart->out,
			      "<rect class=\"hit\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
			      "height=\"%.1f\"><title>%s: sent %s/s, dirty %s/s, remaining %s, "
			      "throttle %.1f %%, %.4g faults/s</title></rect>\n",
			      from, TOP, fmax(x_of(chart, seconds(bin->to_ns)) - from, 0.5),
			      bottom - TOP, at, sent, dirty, left,
			      (double)bin->throttle_permille / 10, bin->faults_per_s);
	}
}

static void draw_legend(FILE *out)
{
	(void)fprintf(out,
		      "<g id=\"legend\"><rect class=\"sent key\" x=\"%.0f\" y=\"4\" width=\"14\" "
		      "height=\"4\"/><text x=\"%.0f\" y=\"12\">send rate</text>"
		      "<rect class=\"dirty key\" x=\"%.0f\" y=\"4\" width=\"14\" height=\"4\"/>"
		      "<text x=\"%.0f\" y=\"12\">dirty rate</text>"
		      "<text x=\"%.0f\" y=\"12\">| round begins</text></g>\n",
		      LEFT, LEFT + 20, LEFT + 100, LEFT + 120, LEFT + 200);
}

void report_chart_timeline(const struct report *report, FILE *out)
{
	struct panel panels[] = {
		{ .id = "sent",
		  .title = "",
		  .height = 190,
		  .value = sent_of,
		  .empty = "nothing sent" },
		{ .id = "left",
		  .title = "Remaining, to be sent",
		  .height = 120,
		  .value = left_of,
		  .is_area = true,
		  .empty = "nothing remained" },
		{ .id = "throttle",
		  .title = "Throttle, share of the guest's time",
		  .height = 54,
		  .value = throttle_of,
		  .is_area = true,
		  .empty = "the guest was not throttled" },
		{ .id = "faults",
		  .title = "Faults served, pages a second",
		  .height = 54,
		  .value = faults_of,
		  .is_area = true,
		  .empty = "no page was waited for" },
	};
	struct chart *chart = calloc(1, sizeof(*chart));
	double top = TOP;

	if (chart == NULL)
		return;
	chart_init(chart, report, out);
	for (size_t i = 0; i < 4; i++) {
		panels[i].top = top;
		panels[i].most = most_of(chart, panels[i].value);
		top += panels[i].height + GAP;
	}
	panels[0].most = fmax(panels[0].most, most_of(chart, dirty_of));
	top -= GAP;
	(void)fprintf(
		out,
		"<svg id=\"timeline\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f "
		"%.0f\" role=\"img\" aria-labelledby=\"tt td\">\n"
		"<title id=\"tt\">The migration over time</title>\n"
		"<desc id=\"td\">Send rate and dirty rate, what remained to be sent, how far "
		"the guest was throttled, and faults served, over the time of the migration. "
		"The tables below have the figures.</desc>\n",
		WIDTH, top + BOTTOM);
	draw_marks(chart, top);
	draw_blackout(chart, top);
	for (size_t i = 0; i < 4; i++) {
		draw_frame(chart, &panels[i]);
		draw_line(chart, &panels[i], panels[i].id, panels[i].value);
	}
	draw_line(chart, &panels[0], "dirty", dirty_of);
	draw_rounds(chart);
	draw_legend(out);
	draw_time(chart, top);
	draw_columns(chart, top);
	(void)fputs("</svg>\n", out);
	free(chart);
}

/* --- the blackout --- */

const char *const report_phase_names[REPORT_PHASES] = {
	"pause",       "last round", "device state", "disks let go",
	"check there", "commit",     "activation",
};

void report_chart_blackout(const struct report *report, FILE *out)
{
	double sum = 0;
	double x = 0;

	for (uint32_t i = 0; i < REPORT_PHASES; i++)
		sum += (double)report->figures.phase_ns[i];
	if (sum <= 0)
		return;
	(void)fprintf(
		out,
		"<svg id=\"phases\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f 44\" "
		"role=\"img\" aria-labelledby=\"bt bd\">\n"
		"<title id=\"bt\">The blackout in its phases</title>\n"
		"<desc id=\"bd\">One bar as long as the blackout, cut into its phases in "
		"order. The table has the figures.</desc>\n",
		WIDTH);
	for (uint32_t i = 0; i < REPORT_PHASES; i++) {
		double wide = WIDTH * (double)report->figures.phase_ns[i] / sum;
		char text[REPORT_SHOWN_BYTES];

		report_show_ns(report->figures.phase_ns[i], text);
		(void)fprintf(out,
			      "<rect class=\"p%" PRIu32 "\" x=\"%.2f\" y=\"4\" width=\"%.2f\" "
			      "height=\"36\"><title>%s: %s</title></rect>\n",
			      i, x, wide, report_phase_names[i], text);
		if (wide > 90)
			(void)fprintf(out, "<text class=\"pt\" x=\"%.1f\" y=\"27\">%s</text>\n",
				      x + 8, report_phase_names[i]);
		x += wide;
	}
	(void)fputs("</svg>\n", out);
}
