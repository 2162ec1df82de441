/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parser of the configuration file and the flags.
 *
 * Each source is parsed into the same struct: defaults, then the file, then the
 * flags; the relations between keys are checked last, on the whole.
 */
#include "agent/vm_config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_config_priv.h"
#include "agent/vm_migrate_net.h"
#include "agent/vm_migrate_tls.h"
#include "base/cleanup.h"
#include "base/file.h"

#define WHERE_BYTES 96

/* One key of one source. */
struct entry {
	const char *where; /* "FILE:LINE" or "command line" */
	const char *name;
	size_t name_length;
	const char *value;
	size_t value_length;
};

/* What is known while parsing. */
struct parse {
	struct vm_config config;
	uint64_t seen;                               /* bit per key, of the source being read */
	uint64_t given;                              /* bit per key, of all sources */
	char where[VM_CONFIG_KEYS_MAX][WHERE_BYTES]; /* where a key was given, for relations */
};

static uint64_t key_bit(const struct vm_key *key)
{
	return UINT64_C(1) << (uint64_t)(key - vm_config_keys);
}

struct vm_shown vm_config_show(const char *bytes, size_t length)
{
	struct vm_shown shown = { .text = "" };
	size_t used = 0;

	for (size_t i = 0; i < length && used < sizeof(shown.text) - 4; i++)
		if (bytes[i] >= ' ' && bytes[i] < 0x7f)
			shown.text[used++] = bytes[i];
		else
			shown.text[used++] = '?';
	if (used < length)
		memcpy(shown.text + used, "...", 4);
	return shown;
}

static int bad_value(const struct entry *entry, const struct vm_key *key, struct base_error *err)
{
	return base_fail(err, -EINVAL, "%s: key '%s': value '%s': expected %s", entry->where,
			 key->name, vm_config_show(entry->value, entry->value_length).text,
			 key->expected);
}

bool vm_config_number(const char *text, size_t length, uint64_t *ret_number)
{
	uint64_t number = 0;

	if (length == 0)
		return false;
	for (size_t i = 0; i < length; i++) {
		uint64_t digit = (uint64_t)(unsigned char)text[i] - '0';

		if (text[i] < '0' || text[i] > '9')
			return false;
		if (number > (UINT64_MAX - digit) / 10)
			return false;
		number = number * 10 + digit;
	}
	*ret_number = number;
	return true;
}

static bool parse_size(const char *text, size_t length, uint64_t *ret_bytes)
{
	static const char suffixes[] = "KMGT";
	const char *suffix = NULL;
	uint64_t number = 0;
	unsigned int shift = 0;

	if (length > 1 && text[length - 1] != '\0')
		suffix = strchr(suffixes, text[length - 1]);
	if (suffix != NULL) {
		shift = 10 * ((unsigned int)(suffix - suffixes) + 1);
		length--;
	}
	if (!vm_config_number(text, length, &number) || number > UINT64_MAX >> shift)
		return false;
	*ret_bytes = number << shift;
	return true;
}

bool vm_config_printable(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
			return false;
	return true;
}

bool vm_config_is_name(const char *text, size_t length)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789";

	if (length == 0 || text[0] == '\0' || strchr(letters, text[0]) == NULL)
		return false;
	for (size_t i = 0; i < length; i++)
		if (text[i] == '\0' ||
		    (strchr(letters, text[i]) == NULL && strchr("._-", text[i]) == NULL))
			return false;
	return true;
}

static int store_text(const struct entry *entry, const struct vm_key *key, char *field,
		      struct base_error *err)
{
	bool good = vm_config_printable(entry->value, entry->value_length) &&
		    entry->value_length < key->size_bytes;

	if (key->type == VM_KEY_NAME)
		good = good && vm_config_is_name(entry->value, entry->value_length);
	if (key->type == VM_KEY_PATH || key->type == VM_KEY_PATHS)
		good = good && entry->value_length > 0;
	if (!good)
		return bad_value(entry, key, err);
	memcpy(field, entry->value, entry->value_length);
	field[entry->value_length] = '\0';
	return 0;
}

static int store_number(const struct entry *entry, const struct vm_key *key, void *field,
			struct base_error *err)
{
	uint64_t number = 0;
	bool good = key->type == VM_KEY_SIZE
			    ? parse_size(entry->value, entry->value_length, &number)
			    : vm_config_number(entry->value, entry->value_length, &number);

	if (!good || number < key->least || number > key->most)
		return bad_value(entry, key, err);
	if (key->step != 0 && number % key->step != 0)
		return bad_value(entry, key, err);
	if (key->type == VM_KEY_FD)
		*(int *)field = (int)number;
	else
		*(uint64_t *)field = number;
	return 0;
}

static int store_choice(const struct entry *entry, const struct vm_key *key, int *field,
			struct base_error *err)
{
	char word[32]; /* longer than any choice */
	int choice = 0;

	if (entry->value_length >= sizeof(word) ||
	    memchr(entry->value, '\0', entry->value_length) != NULL)
		return bad_value(entry, key, err);
	memcpy(word, entry->value, entry->value_length);
	word[entry->value_length] = '\0';
	choice = key->choice(word);
	if (choice <= 0)
		return bad_value(entry, key, err);
	*field = choice;
	return 0;
}

static int store_console(const struct entry *entry, const struct vm_key *key,
			 struct vm_console_spec *field, struct base_error *err)
{
	static const struct {
		const char *prefix;
		enum vm_console_kind kind;
		size_t path_bytes_max; /* with its zero; 0: takes no path */
	} forms[] = {
		{ "stdio", VM_CONSOLE_STDIO, 0 },
		{ "none", VM_CONSOLE_NONE, 0 },
		{ "file:", VM_CONSOLE_FILE, VM_PATH_BYTES },
		{ "unix:", VM_CONSOLE_UNIX, VM_SOCKET_PATH_BYTES },
	};

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		size_t prefix_length = strlen(forms[i].prefix);
		size_t path_length = 0;

		if (entry->value_length < prefix_length ||
		    memcmp(entry->value, forms[i].prefix, prefix_length) != 0)
			continue;
		path_length = entry->value_length - prefix_length;
		if ((forms[i].path_bytes_max == 0) != (path_length == 0) ||
		    (path_length > 0 && path_length >= forms[i].path_bytes_max) ||
		    !vm_config_printable(entry->value, entry->value_length))
			return bad_value(entry, key, err);
		field->kind = forms[i].kind;
		memcpy(field->path, entry->value + prefix_length, path_length);
		field->path[path_length] = '\0';
		return 0;
	}
	return bad_value(entry, key, err);
}

static uint32_t *element_count(struct vm_config *config, const struct vm_key *key)
{
	return (uint32_t *)(void *)((char *)config + key->count_offset);
}

/* A key that may be given several times: one more element. */
static int store_element(struct vm_config *config, const struct entry *entry,
			 const struct vm_key *key, struct base_error *err)
{
	uint32_t *count = element_count(config, key);
	char *field = (char *)config + key->offset + *count * key->size_bytes;
	int code = 0;

	if (*count >= key->most)
		return base_fail(err, -EINVAL,
				 "%s: key '%s': value '%s': expected the key at most %" PRIu64
				 " times",
				 entry->where, key->name,
				 vm_config_show(entry->value, entry->value_length).text, key->most);
	if (key->type == VM_KEY_DISK)
		code = vm_config_disk(entry->where, entry->value, entry->value_length,
				      (struct vm_disk_config *)(void *)field, err);
	else if (key->type == VM_KEY_NIC)
		code = vm_config_nic(entry->where, entry->value, entry->value_length,
				     (struct vm_nic_config *)(void *)field, err);
	else
		code = store_text(entry, key, field, err);
	if (code == 0)
		(*count)++;
	return code;
}

static int store(struct vm_config *config, const struct entry *entry, const struct vm_key *key,
		 struct base_error *err)
{
	void *field = (char *)config + key->offset;

	switch (key->type) {
	case VM_KEY_NAME:
	case VM_KEY_TEXT:
	case VM_KEY_PATH:
		return store_text(entry, key, field, err);
	case VM_KEY_SIZE:
	case VM_KEY_NUMBER:
	case VM_KEY_FD:
		return store_number(entry, key, field, err);
	case VM_KEY_CHOICE:
		return store_choice(entry, key, field, err);
	case VM_KEY_CONSOLE:
		return store_console(entry, key, field, err);
	case VM_KEY_DISK:
	case VM_KEY_NIC:
	case VM_KEY_PATHS:
		return store_element(config, entry, key, err);
	case VM_KEY_INVALID:
	case VM_KEY_TYPES:
		break;
	}
	base_bug("configuration key '%s' has type %d", key->name, (int)key->type);
}

/* The end of "FILE:LINE" counts when it does not fit: the line is there. */
static void remember_where(char to[WHERE_BYTES], const char *where)
{
	size_t length = strlen(where);

	if (length < WHERE_BYTES)
		(void)snprintf(to, WHERE_BYTES, "%s", where);
	else
		(void)snprintf(to, WHERE_BYTES, "...%s", where + length - (WHERE_BYTES - 4));
}

static int take_entry(struct parse *parse, const struct entry *entry, struct base_error *err)
{
	const struct vm_key *key = vm_config_key_find(entry->name, entry->name_length);
	int code = 0;

	if (key == NULL)
		return base_fail(err, -EINVAL,
				 "%s: key '%s': value '%s': expected a known key, see godwit-vm(8)",
				 entry->where, vm_config_show(entry->name, entry->name_length).text,
				 vm_config_show(entry->value, entry->value_length).text);
	if (vm_key_repeats(key) && (parse->seen & key_bit(key)) == 0)
		*element_count(&parse->config, key) = 0; /* flags replace the file's list */
	else if (!vm_key_repeats(key) && (parse->seen & key_bit(key)) != 0)
		return base_fail(err, -EINVAL,
				 "%s: key '%s': value '%s': expected the key once, it was given in "
				 "%s already",
				 entry->where, key->name,
				 vm_config_show(entry->value, entry->value_length).text,
				 parse->where[key - vm_config_keys]);
	code = store(&parse->config, entry, key, err);
	if (code < 0)
		return code;
	parse->seen |= key_bit(key);
	parse->given |= key_bit(key);
	remember_where(parse->where[key - vm_config_keys], entry->where);
	return 0;
}

static void set_defaults(struct parse *parse)
{
	memset(parse, 0, sizeof(*parse));
	for (size_t i = 0; i < vm_config_key_count; i++) {
		const struct vm_key *key = &vm_config_keys[i];
		struct entry entry = { .where = "defaults", .name = key->name, .value = "" };
		struct base_error err = { 0 };

		if (key->type == VM_KEY_FD) {
			*(int *)((void *)((char *)&parse->config + key->offset)) = -1;
			continue;
		}
		if (key->value == NULL)
			continue;
		entry.value = key->value;
		entry.value_length = strlen(key->value);
		if (store(&parse->config, &entry, key, &err) < 0)
			base_bug("%s", err.text);
	}
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* Cut blanks at both ends. */
static void trim(const char **text, size_t *length)
{
	while (*length > 0 && is_blank((*text)[0])) {
		(*text)++;
		(*length)--;
	}
	while (*length > 0 && is_blank((*text)[*length - 1]))
		(*length)--;
}

static int take_line(struct parse *parse, const char *where, const char *line, size_t length,
		     struct base_error *err)
{
	struct entry entry = { .where = where };
	const char *equals = NULL;

	trim(&line, &length);
	if (length == 0 || line[0] == '#')
		return 0;
	equals = memchr(line, '=', length);
	if (equals == NULL)
		return base_fail(err, -EINVAL, "%s: line '%s': expected 'key = value'", where,
				 vm_config_show(line, length).text);
	entry.name = line;
	entry.name_length = (size_t)(equals - line);
	entry.value = equals + 1;
	entry.value_length = length - entry.name_length - 1;
	trim(&entry.name, &entry.name_length);
	trim(&entry.value, &entry.value_length);
	return take_entry(parse, &entry, err);
}

static int take_file(struct parse *parse, const char *file, const char *text, size_t size_bytes,
		     struct base_error *err)
{
	uint32_t line_number = 1;

	parse->seen = 0;
	while (size_bytes > 0) {
		const char *end = memchr(text, '\n', size_bytes);
		size_t length = end != NULL ? (size_t)(end - text) : size_bytes;
		char where[VM_PATH_BYTES + 16];
		int code = 0;

		(void)snprintf(where, sizeof(where), "%s:%" PRIu32, file, line_number);
		code = take_line(parse, where, text, length, err);
		if (code < 0)
			return code;
		if (end == NULL)
			break;
		text += length + 1;
		size_bytes -= length + 1;
		line_number++;
	}
	return 0;
}

/* Where key @name was given, "" when it was not. */
static const char *where_given(const struct parse *parse, const char *name)
{
	const struct vm_key *key = vm_config_key_find(name, strlen(name));

	base_assert(key != NULL);
	return (parse->given & key_bit(key)) != 0 ? parse->where[key - vm_config_keys] : "";
}

static bool is_given(const struct parse *parse, const char *name)
{
	return where_given(parse, name)[0] != '\0';
}

/* Keys that mean nothing without another one. */
static int check_needs(const struct parse *parse, struct base_error *err)
{
	static const struct {
		const char *key;
		const char *needs;
	} needs[] = {
		{ "initrd", "kernel" },
		{ "cmdline", "kernel" },
		{ "incoming", "state-dir" },
		{ "leash-page-fd", "leash-event-fd" },
		{ "leash-event-fd", "leash-page-fd" },
		{ "leash-page-fd", "epoch" },
	};

	for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++)
		if (is_given(parse, needs[i].key) && !is_given(parse, needs[i].needs))
			return base_fail(err, -EINVAL, "%s: key '%s': expected key '%s' with it",
					 where_given(parse, needs[i].key), needs[i].key,
					 needs[i].needs);
	return 0;
}

static int check_fds(const struct parse *parse, struct base_error *err)
{
	const struct vm_config *config = &parse->config;
	const struct {
		const char *key;
		int fd;
	} fds[] = {
		{ "kvm-fd", config->kvm_fd },
		{ "leash-page-fd", config->leash_page_fd },
		{ "leash-event-fd", config->leash_event_fd },
	};

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		for (size_t j = 0; j < i; j++)
			if (fds[i].fd >= 0 && fds[i].fd == fds[j].fd)
				return base_fail(err, -EINVAL,
						 "%s: key '%s': value '%d': expected another "
						 "descriptor than key '%s' has",
						 where_given(parse, fds[i].key), fds[i].key,
						 fds[i].fd, fds[j].key);
	return 0;
}

/* What the machine boots, and which keys that takes. */
static int check_boot(const struct parse *parse, struct base_error *err)
{
	const struct vm_config *config = &parse->config;

	if (config->boot == VM_BOOT_KERNEL && config->kernel[0] == '\0')
		return base_fail(err, -EINVAL,
				 "%s: key 'boot': value 'kernel': expected key 'kernel' with it",
				 where_given(parse, "boot"));
	if (config->boot == VM_BOOT_DISK && config->kernel[0] != '\0')
		return base_fail(err, -EINVAL,
				 "%s: key 'boot': value 'disk': expected it without key 'kernel'",
				 where_given(parse, "boot"));
	if (config->boot == VM_BOOT_DISK && config->disk_count == 0)
		return base_fail(err, -EINVAL,
				 "%s: key 'boot': value 'disk': expected key 'disk' with it",
				 where_given(parse, "boot"));
	if (config->kernel[0] == '\0' && config->restore[0] == '\0' &&
	    config->incoming[0] == '\0' && config->disk_count == 0)
		return base_fail(err, -EINVAL,
				 "key 'kernel': not given: expected the path of a Linux bzImage or "
				 "an ELF64 kernel, or key 'disk', 'restore' or 'incoming'");
	return 0;
}

/* A VM that comes from another worker, and what cannot be with it. */
static int check_incoming(const struct parse *parse, struct base_error *err)
{
	const struct vm_config *config = &parse->config;
	struct vm_addresses addresses;
	struct base_error why = { 0 };

	if (is_given(parse, "restore-force-tsc") && config->restore[0] == '\0' &&
	    config->incoming[0] == '\0')
		return base_fail(err, -EINVAL,
				 "%s: key 'restore-force-tsc': expected key 'restore' or "
				 "'incoming' with it",
				 where_given(parse, "restore-force-tsc"));
	if (config->migrate_peers[0] != '\0' &&
	    vm_migrate_tls_check_peers(config->migrate_peers, &why) < 0)
		return base_fail(err, -EINVAL, "%s: key 'migrate-peers': value '%s': %s",
				 where_given(parse, "migrate-peers"), config->migrate_peers,
				 why.text);
	if (config->incoming[0] == '\0')
		return 0;
	if (vm_addresses_parse(config->incoming, &addresses, &why) < 0)
		return base_fail(err, -EINVAL, "%s: key 'incoming': value %s",
				 where_given(parse, "incoming"), why.text);
	if (config->restore[0] != '\0')
		return base_fail(
			err, -EINVAL,
			"%s: key 'incoming': value '%s': expected it without key 'restore'",
			where_given(parse, "incoming"), config->incoming);
	if (config->migrate == VM_SWITCH_OFF)
		return base_fail(err, -EINVAL,
				 "%s: key 'incoming': value '%s': expected key 'migrate' to be on",
				 where_given(parse, "incoming"), config->incoming);
	if (config->migrate_peers[0] == '\0' && config->migrate_clear == VM_SWITCH_OFF)
		return base_fail(
			err, -EINVAL,
			"%s: key 'incoming': value '%s': expected key 'migrate-peers' with "
			"it, or key 'migrate-clear' on",
			where_given(parse, "incoming"), config->incoming);
	return 0;
}

static int check_relations(struct parse *parse, struct base_error *err)
{
	const struct vm_config *config = &parse->config;
	int code = check_needs(parse, err);

	if (code == 0)
		code = check_fds(parse, err);
	if (code == 0)
		code = check_boot(parse, err);
	if (code == 0)
		code = check_incoming(parse, err);
	if (code == 0)
		code = vm_config_devices_check(&parse->config, err);
	if (code < 0)
		return code;
	if (config->leash_page_fd >= 0 && config->epoch == 0)
		return base_fail(err, -EINVAL,
				 "%s: key 'epoch': value '0': expected at least 1 with a leash",
				 where_given(parse, "epoch"));
	if (config->console.kind == VM_CONSOLE_UNIX && config->control[0] != '\0' &&
	    strcmp(config->console.path, config->control) == 0)
		return base_fail(err, -EINVAL,
				 "%s: key 'console': value 'unix:%s': expected another path than "
				 "key 'control' has",
				 where_given(parse, "console"), config->console.path);
	return 0;
}

int vm_config_parse_text(const char *file, const char *text, size_t size_bytes,
			 struct vm_config *ret_config, struct base_error *err)
{
	BASE_FREE struct parse *parse = malloc(sizeof(*parse));
	int code = 0;

	if (parse == NULL)
		return base_fail(err, -ENOMEM, "configuration: no memory");
	set_defaults(parse);
	code = take_file(parse, file, text, size_bytes, err);
	if (code == 0)
		code = check_relations(parse, err);
	if (code == 0)
		*ret_config = parse->config;
	return code;
}

/* One flag of the command line, "--name=value" or "--name value". */
struct flag {
	struct entry entry;
	int used; /* arguments: 1 or 2 */
};

#define FLAG_NONE                                                                                  \
	{                                                                                          \
		.entry = { .where = "command line", .name = "", .value = "" }, .used = 1           \
	}

static int split_flag(int argc, char *const argv[], int index, struct flag *ret_flag,
		      struct base_error *err)
{
	const char *argument = argv[index];
	struct flag flag = FLAG_NONE;
	const char *equals = NULL;

	if (strncmp(argument, "--", 2) != 0)
		return base_fail(err, -EINVAL,
				 "command line: argument '%s': expected --key value or --key=value",
				 vm_config_show(argument, strlen(argument)).text);
	argument += 2;
	equals = strchr(argument, '=');
	flag.entry.name = argument;
	flag.entry.name_length = equals != NULL ? (size_t)(equals - argument) : strlen(argument);
	if (equals != NULL) {
		flag.entry.value = equals + 1;
	} else if (index + 1 < argc) {
		flag.entry.value = argv[index + 1];
		flag.used = 2;
	} else {
		return base_fail(err, -EINVAL, "command line: key '%s': expected a value after it",
				 vm_config_show(argument, flag.entry.name_length).text);
	}
	flag.entry.value_length = strlen(flag.entry.value);
	*ret_flag = flag;
	return 0;
}

static bool is_config_flag(const struct entry *entry)
{
	return entry->name_length == strlen("config") &&
	       memcmp(entry->name, "config", entry->name_length) == 0;
}

static int load_config_file(struct parse *parse, const char *path, struct base_error *err)
{
	BASE_FREE uint8_t *data = NULL;
	size_t size_bytes = 0;
	int code = base_file_load(path, VM_CONFIG_FILE_BYTES_MAX, &data, &size_bytes, err);

	if (code < 0)
		return base_fail_within(err, code, "configuration file");
	return take_file(parse, path, (const char *)data, size_bytes, err);
}

/* First pass: the file, wherever in the line it is named, so that all flags win over it. */
static int take_config_flag(struct parse *parse, int argc, char *const argv[],
			    struct base_error *err)
{
	const char *path = NULL;
	struct flag flag = FLAG_NONE;

	for (int i = 1; i < argc; i += flag.used) {
		int code = split_flag(argc, argv, i, &flag, err);

		if (code < 0)
			return code;
		if (!is_config_flag(&flag.entry))
			continue;
		if (path != NULL)
			return base_fail(
				err, -EINVAL,
				"command line: key 'config': value '%s': expected it once",
				vm_config_show(flag.entry.value, flag.entry.value_length).text);
		path = flag.entry.value;
	}
	return path != NULL ? load_config_file(parse, path, err) : 0;
}

static int take_flags(struct parse *parse, int argc, char *const argv[], struct base_error *err)
{
	struct flag flag = FLAG_NONE;

	parse->seen = 0;
	for (int i = 1; i < argc; i += flag.used) {
		int code = split_flag(argc, argv, i, &flag, err);

		if (code == 0 && !is_config_flag(&flag.entry))
			code = take_entry(parse, &flag.entry, err);
		if (code < 0)
			return code;
	}
	return 0;
}

/* The flags that take no value stand alone. */
static enum vm_config_action lone_action(int argc, char *const argv[])
{
	if (argc != 2)
		return VM_CONFIG_RUN;
	if (strcmp(argv[1], "--help") == 0)
		return VM_CONFIG_HELP;
	if (strcmp(argv[1], "--man") == 0)
		return VM_CONFIG_MAN;
	if (strcmp(argv[1], "--version") == 0)
		return VM_CONFIG_VERSION;
	return VM_CONFIG_RUN;
}

int vm_config_parse(int argc, char *const argv[], enum vm_config_action *ret_action,
		    struct vm_config *ret_config, struct base_error *err)
{
	BASE_FREE struct parse *parse = NULL;
	int code = 0;

	if (lone_action(argc, argv) != VM_CONFIG_RUN) {
		*ret_action = lone_action(argc, argv);
		return 0;
	}
	parse = malloc(sizeof(*parse));
	if (parse == NULL)
		return base_fail(err, -ENOMEM, "configuration: no memory");
	set_defaults(parse);
	code = take_config_flag(parse, argc, argv, err);
	if (code == 0)
		code = take_flags(parse, argc, argv, err);
	if (code == 0)
		code = check_relations(parse, err);
	if (code < 0)
		return code;
	*ret_config = parse->config;
	*ret_action = VM_CONFIG_RUN;
	return 0;
}
