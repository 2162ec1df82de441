/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of "godwit disk": verbs, options, operands and their texts.
 */
#include "agent/cli_disk_priv.h"

#define FIELD(member)   .offset = offsetof(struct cli_disk_args, member)
#define COUNT(array)    (sizeof(array) / sizeof((array)[0]))
#define SECTOR_EXPECTED "512 or 4096"

static const struct cli_word format_words[] = {
	{ "vhdx", CLI_DISK_VHDX },
	{ "vhd", CLI_DISK_VHD },
	{ "vpc", CLI_DISK_VHD },
	{ "raw", CLI_DISK_RAW },
	{ NULL, 0 },
};
static const struct cli_word source_words[] = {
	{ "vhdx", CLI_DISK_VHDX }, { "vhd", CLI_DISK_VHD },     { "vpc", CLI_DISK_VHD },
	{ "raw", CLI_DISK_RAW },   { "qcow2", CLI_DISK_QCOW2 }, { NULL, 0 },
};
static const struct cli_word kind_words[] = {
	{ "fixed", DISK_FIXED },
	{ "dynamic", DISK_DYNAMIC },
	{ NULL, 0 },
};
static const struct cli_word output_words[] = {
	{ "human", CLI_DISK_OUTPUT_HUMAN },
	{ "json", CLI_DISK_OUTPUT_JSON },
	{ NULL, 0 },
};
static const struct cli_word mend_words[] = {
	{ "leaks", CLI_DISK_MEND_LEAKS },
	{ "all", CLI_DISK_MEND_ALL },
	{ NULL, 0 },
};

#define OPERAND(member, label, text)                                                               \
	{                                                                                          \
		.type = CLI_TEXT, FIELD(member), .value = (label),                                 \
		.expected = "the name of a file", .help = (text)                                   \
	}
#define FLAG(member, long_name, short_letter, text)                                                \
	{                                                                                          \
		.name = (long_name), .letter = (short_letter), .type = CLI_FLAG, FIELD(member),    \
		.help = (text)                                                                     \
	}
#define FORMAT_ROW                                                                                 \
	{                                                                                          \
		.name = "format", .letter = 'f', .type = CLI_CHOICE, FIELD(format),                \
		.value = "FORMAT", .words = format_words,                                          \
		.help = "Format of the image. Without it the content is looked at; say raw where " \
			"a guest wrote the content."                                               \
	}
#define QUIET_ROW FLAG(quiet, "quiet", 'q', "Print nothing but errors.")
#define PROGRESS_ROW                                                                               \
	FLAG(progress, "progress", 'p',                                                            \
	     "Show progress also where standard output is no terminal; there a line each 10 %.")
#define DRY_RUN_ROW FLAG(dry_run, "dry-run", 'n', "Check, say what would be done, do nothing.")
#define JSON_ROWS                                                                                  \
	FLAG(json, "json", 0, "Print JSON."),                                                      \
	{                                                                                          \
		.name = "output", .type = CLI_CHOICE, FIELD(output), .value = "FORM",              \
		.words = output_words, .help = "The same as --json, as qemu-img has it."           \
	}
#define SHARE_ROW                                                                                  \
	FLAG(force_share, "force-share", 'U',                                                      \
	     "Read an image that somebody is writing. What is read may not fit together.")
/* What a new image is like. */
#define SHAPE_ROWS                                                                                 \
	FLAG(fixed, "fixed", 0,                                                                    \
	     "Reserve all space now. Without it the image grows as it is written."),               \
		{ .name = "block-size",                                                            \
		  .key = "block_size",                                                             \
		  .type = CLI_SIZE,                                                                \
		  FIELD(block_bytes),                                                              \
		  .value = "SIZE",                                                                 \
		  .help = "Size of a block: VHDX 1M to 256M, VHD 512K to 256M, a power of two." }, \
		{ .name = "sector",                                                                \
		  .key = "logical_sector_size",                                                    \
		  .type = CLI_SIZE,                                                                \
		  FIELD(logical_sector_bytes),                                                     \
		  .value = "SIZE",                                                                 \
		  .expected = SECTOR_EXPECTED,                                                     \
		  .help = "Logical sector the guest sees: 512 or, in VHDX, 4096." },               \
		{ .name = "physical-sector",                                                       \
		  .key = "physical_sector_size",                                                   \
		  .type = CLI_SIZE,                                                                \
		  FIELD(physical_sector_bytes),                                                    \
		  .value = "SIZE",                                                                 \
		  .expected = SECTOR_EXPECTED,                                                     \
		  .help = "Physical sector the guest is told of: 512 or, in VHDX, 4096." },        \
		{ .name = "log-size",                                                              \
		  .key = "log_size",                                                               \
		  .type = CLI_SIZE,                                                                \
		  FIELD(log_bytes),                                                                \
		  .value = "SIZE",                                                                 \
		  .help = "VHDX: size of the log, a multiple of 1M." },                            \
		{ .key = "subformat",                                                              \
		  .type = CLI_CHOICE,                                                              \
		  FIELD(kind),                                                                     \
		  .value = "KIND",                                                                 \
		  .words = kind_words,                                                             \
		  .help = "The same as --fixed, as qemu-img has it." },                            \
	{                                                                                          \
		.name = "options", .letter = 'o', .type = CLI_KEYS, .value = "KEY=VALUE,...",      \
		.help = "Options of the new image as qemu-img has them."                           \
	}

static const struct cli_row create_rows[] = {
	OPERAND(name, "NAME", "The new image; it must not exist."),
	{ .type = CLI_SIZE,
	  FIELD(size_bytes),
	  .optional = true,
	  .value = "SIZE",
	  .help = "Size the guest sees. Left out only with a parent: then the parent's." },
	{ .name = "format",
	  .letter = 'f',
	  .type = CLI_CHOICE,
	  FIELD(format),
	  .value = "FORMAT",
	  .words = format_words,
	  .help = "Format of the new image. Without it the name's end says it: .vhdx, .avhdx, "
		  ".vhd, .avhd, .raw or .img." },
	{ .name = "parent",
	  .letter = 'b',
	  .type = CLI_TEXT,
	  FIELD(parent),
	  .value = "PARENT",
	  .expected = "the name of a file",
	  .help = "Make a differencing image on this one, which must not be written any more." },
	{ .name = "parent-format",
	  .letter = 'F',
	  .type = CLI_CHOICE,
	  FIELD(other_format),
	  .value = "FORMAT",
	  .words = format_words,
	  .help = "Format of the parent; without it the content is looked at." },
	SHAPE_ROWS,
	DRY_RUN_ROW,
	QUIET_ROW,
};
static const char *const create_examples[] = {
	"godwit disk create web1.vhdx 40G",
	"godwit disk create --fixed --sector 4096 db.vhdx 200G",
	"godwit disk create -b web1.vhdx web1-test.avhdx",
	NULL,
};

static const struct cli_row info_rows[] = {
	OPERAND(name, "NAME", "The image."),
	FORMAT_ROW,
	FLAG(backing_chain, "backing-chain", 0, "Show the parents, too."),
	JSON_ROWS,
};

static const struct cli_row map_rows[] = {
	OPERAND(name, "NAME", "The image."),
	FORMAT_ROW,
	JSON_ROWS,
};

static const struct cli_row check_rows[] = {
	OPERAND(name, "NAME", "The image."),
	FORMAT_ROW,
	FLAG(repair, "repair", 0,
	     "Mend what is proven: replay the log, put whole copies over broken ones, give "
	     "unused space back. Data that may be a guest's is never touched."),
	{ .letter = 'r',
	  .name = "mend",
	  .type = CLI_CHOICE,
	  FIELD(mend),
	  .value = "WHAT",
	  .words = mend_words,
	  .help = "The same as --repair, as qemu-img has it." },
	SHARE_ROW,
	JSON_ROWS,
	QUIET_ROW,
};

static const struct cli_row convert_rows[] = {
	OPERAND(name, "SOURCE", "The image to read, with its parents."),
	OPERAND(other, "TARGET", "The new image. It appears under its name only when whole."),
	{ .name = "format",
	  .letter = 'f',
	  .type = CLI_CHOICE,
	  FIELD(format),
	  .value = "FORMAT",
	  .words = source_words,
	  .help = "Format of the source. Without it the content is looked at; say raw where a "
		  "guest wrote the content. qcow2 is read through qemu-img, which must be "
		  "installed." },
	{ .name = "target-format",
	  .letter = 'O',
	  .type = CLI_CHOICE,
	  FIELD(other_format),
	  .value = "FORMAT",
	  .words = format_words,
	  .help = "Format of the target. Without it the name's end says it." },
	SHAPE_ROWS,
	FLAG(force, "force", 0, "Replace a target that is there, unless somebody holds it."),
	FLAG(with_backing, "with-backing", 0,
	     "Follow a qcow2 source to the other files it names. Only for images you trust: they "
	     "can name any file."),
	SHARE_ROW,
	PROGRESS_ROW,
	DRY_RUN_ROW,
	QUIET_ROW,
};
static const char *const convert_examples[] = {
	"godwit disk convert web1.qcow2 web1.vhdx",
	"godwit disk convert -O raw web1.vhdx web1.img",
	"godwit disk convert --fixed old.vhd new.vhdx",
	NULL,
};

static const struct cli_row resize_rows[] = {
	OPERAND(name, "NAME", "The image."),
	{ .type = CLI_DELTA,
	  FIELD(delta),
	  .value = "SIZE",
	  .help = "The new size; with + or - in front, by how much it changes." },
	FORMAT_ROW,
	FLAG(shrink, "shrink", 0,
	     "Allow a smaller size. Also then the end must be free: never written, unmapped or "
	     "zero."),
	DRY_RUN_ROW,
	QUIET_ROW,
};

static const struct cli_row compact_rows[] = {
	OPERAND(name, "NAME", "The image."), FORMAT_ROW, PROGRESS_ROW, DRY_RUN_ROW, QUIET_ROW,
};

static const struct cli_row merge_rows[] = {
	OPERAND(name, "NAME",
		"The differencing image; it is removed when its content is in the "
		"parent."),
	FORMAT_ROW,
	PROGRESS_ROW,
	DRY_RUN_ROW,
	QUIET_ROW,
};

static const struct cli_row compare_rows[] = {
	OPERAND(name, "NAME1", "An image."),
	OPERAND(other, "NAME2", "Another image, of any format and kind."),
	FORMAT_ROW,
	{ .name = "second-format",
	  .letter = 'F',
	  .type = CLI_CHOICE,
	  FIELD(other_format),
	  .value = "FORMAT",
	  .words = format_words,
	  .help = "Format of the second image." },
	FLAG(strict, "strict", 's',
	     "Different sizes are a difference. Without it what the longer one has more must be "
	     "zeros."),
	SHARE_ROW,
	PROGRESS_ROW,
	QUIET_ROW,
};

const struct cli_verb cli_disk_verbs[CLI_DISK_VERBS] = {
	{ .name = "create",
	  .summary = "Make a new, empty disk, or a differencing one on a parent.",
	  .text = "Makes a new image. It is there whole and durable, or not at all.",
	  .rows = create_rows,
	  .row_count = COUNT(create_rows),
	  .examples = create_examples,
	  .run = cli_disk_create },
	{ .name = "info",
	  .summary = "Show what an image is, and who holds it.",
	  .text = "Shows format, kind, sizes, identities and parent of an image, the state of its "
		  "log, and who holds it at which epoch. Nothing is written.",
	  .rows = info_rows,
	  .row_count = COUNT(info_rows),
	  .run = cli_disk_info },
	{ .name = "check",
	  .summary = "Look for damage and for space that is lost, and mend it.",
	  .text = "Reads every structure of one image, not of its parents. Exit code 0: no damage; "
		  "space that nothing uses is reported and does no harm. Exit code 1: damage is "
		  "left, or the image cannot be read. Without --repair nothing is written.",
	  .rows = check_rows,
	  .row_count = COUNT(check_rows),
	  .run = cli_disk_check },
	{ .name = "convert",
	  .summary = "Copy a disk into a new image of any format and kind.",
	  .text = "Copies what a guest would read of the source, parents included. What is not "
		  "allocated or zero takes no space in the target. Interrupted (SIGINT, SIGTERM), "
		  "it leaves nothing.",
	  .rows = convert_rows,
	  .row_count = COUNT(convert_rows),
	  .examples = convert_examples,
	  .run = cli_disk_convert },
	{ .name = "resize",
	  .summary = "Change the size the guest sees.",
	  .text = "Changes the size of the disk. File systems inside do not change.",
	  .rows = resize_rows,
	  .row_count = COUNT(resize_rows),
	  .run = cli_disk_resize },
	{ .name = "compact",
	  .summary = "Make the file of a dynamic disk small again.",
	  .text = "Gives back blocks that hold only zeros, moves the others down and cuts the "
		  "file. Interrupted, it leaves a whole image with the same content.",
	  .rows = compact_rows,
	  .row_count = COUNT(compact_rows),
	  .run = cli_disk_compact },
	{ .name = "merge",
	  .summary = "Merge a differencing disk into its parent.",
	  .text = "Writes what the image holds into its parent and removes the image's file. Other "
		  "images on the same parent do not fit it any more afterwards. Interrupted, it "
		  "leaves both, with the same content as before.",
	  .rows = merge_rows,
	  .row_count = COUNT(merge_rows),
	  .run = cli_disk_merge },
	{ .name = "compare",
	  .summary = "Say whether two disks have the same content.",
	  .text = "Compares what a guest would read. Exit code 0: the same. Exit code 1: they "
		  "differ, and the first difference is printed. Exit code 3: one of them could "
		  "not be read, so it is not known.",
	  .rows = compare_rows,
	  .row_count = COUNT(compare_rows),
	  .run = cli_disk_compare },
	{ .name = "map",
	  .summary = "List which parts of a disk hold data.",
	  .text = "Lists the runs of a disk, parents included: data, zero (known to read zero), or "
		  "unmapped (not allocated anywhere, reads zero).",
	  .rows = map_rows,
	  .row_count = COUNT(map_rows),
	  .run = cli_disk_map },
	{ .name = "boot-entry",
	  .summary = "Show which kernel the boot loader on a disk would boot.",
	  .text = "Shows kernel, initial ramdisk and command line that GRUB or systemd-boot on the "
		  "disk would take by itself. Nothing is written.",
	  .rows = map_rows,
	  .row_count = COUNT(map_rows),
	  .run = cli_disk_boot_entry },
};
