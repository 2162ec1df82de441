/* SPDX-License-Identifier: Apache-2.0 */
/* The control protocol's bytes. */
#include "agent/vm_control_proto.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/* A string from outside, as it is shown in an error. */
struct shown {
	char text[64];
};

static struct shown show(const char *outside)
{
	struct shown shown = { .text = "" };
	size_t used = 0;

	for (; outside[used] != '\0' && used < sizeof(shown.text) - 4; used++) {
		if (outside[used] >= ' ' && outside[used] < 0x7f)
			shown.text[used] = outside[used];
		else
			shown.text[used] = '?';
	}
	if (outside[used] != '\0')
		memcpy(shown.text + used, "...", 4);
	return shown;
}

/* What an argument of a type has to be, for error texts. */
static const char *type_text(enum vm_arg_type type)
{
	static const char *const texts[VM_ARG_TYPES] = {
		[VM_ARG_TEXT] = "a string of 1 to 255 bytes without control characters",
		[VM_ARG_BYTES] = "a string of 1 to 255 bytes",
		[VM_ARG_SWITCH] = "true or false",
		[VM_ARG_NUMBER] = "an integer from 0, or such a number in a string",
	};

	return texts[type];
}

static bool take_text(const json_t *value, bool printable, struct vm_arg *arg)
{
	const char *text = json_string_value(value);
	size_t length = json_string_length(value);

	if (text == NULL || length == 0 || length >= sizeof(arg->text))
		return false;
	for (size_t i = 0; i < length; i++)
		if (text[i] == '\0' ||
		    (printable && ((unsigned char)text[i] < ' ' || text[i] == 0x7f)))
			return false;
	memcpy(arg->text, text, length);
	arg->text[length] = '\0';
	return true;
}

/* Digits to @base only: strtoull alone would take signs and blanks. */
static bool take_digits(const char *text, unsigned int base, uint64_t *ret_number)
{
	static const char digits[] = "0123456789abcdefABCDEF"; /* 'A' stands 6 after 'a' */
	uint64_t number = 0;

	if (*text == '\0')
		return false;
	for (; *text != '\0'; text++) {
		const char *at = strchr(digits, *text);
		uint64_t digit = 0;

		if (at == NULL)
			return false;
		digit = (uint64_t)(at - digits);
		if (digit >= 16)
			digit -= 6;
		if (digit >= base)
			return false;
		if (number > (UINT64_MAX - digit) / base)
			return false;
		number = number * base + digit;
	}
	*ret_number = number;
	return true;
}

static bool take_number(const json_t *value, struct vm_arg *arg)
{
	const char *text = json_string_value(value);

	if (json_is_integer(value)) {
		arg->number = (uint64_t)json_integer_value(value);
		return json_integer_value(value) >= 0;
	}
	if (text == NULL || strlen(text) != json_string_length(value))
		return false;
	if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X'))
		return take_digits(text + 2, 16, &arg->number);
	return take_digits(text, 10, &arg->number);
}

static bool take_value(const json_t *value, enum vm_arg_type type, struct vm_arg *arg)
{
	switch (type) {
	case VM_ARG_TEXT:
		return take_text(value, true, arg);
	case VM_ARG_BYTES:
		return take_text(value, false, arg);
	case VM_ARG_SWITCH:
		arg->flag = json_is_true(value);
		return json_is_boolean(value);
	case VM_ARG_NUMBER:
		return take_number(value, arg);
	case VM_ARG_INVALID:
	case VM_ARG_TYPES:
		break;
	}
	base_bug("argument type %d", (int)type);
}

static int take_args(const struct vm_command_spec *command, const json_t *object,
		     struct vm_request *request, struct base_error *err)
{
	size_t known = 2; /* id and cmd */

	for (size_t i = 0; i < VM_CONTROL_ARGS_MAX && command->args[i].name != NULL; i++) {
		const struct vm_arg_spec *spec = &command->args[i];
		const json_t *value = json_object_get(object, spec->name);

		if (value == NULL && spec->required)
			return base_fail(err, -EINVAL, "command '%s': argument '%s': expected %s",
					 command->name, spec->name, type_text(spec->type));
		if (value == NULL)
			continue;
		if (!take_value(value, spec->type, &request->args[i]))
			return base_fail(err, -EINVAL,
					 "command '%s': argument '%s': wrong value: expected %s",
					 command->name, spec->name, type_text(spec->type));
		request->args[i].given = true;
		known++;
	}
	if (json_object_size(object) != known)
		return base_fail(
			err, -EINVAL,
			"command '%s': %zu keys: expected id, cmd and its own arguments only",
			command->name, json_object_size(object));
	return 0;
}

static int find_command(const struct vm_command_spec *commands, size_t command_count,
			const char *name, size_t *ret_index)
{
	for (size_t i = 0; i < command_count; i++) {
		if (strcmp(commands[i].name, name) == 0) {
			*ret_index = i;
			return 0;
		}
	}
	return -EINVAL;
}

int vm_request_decode(const struct vm_command_spec *commands, size_t command_count,
		      const char *line, size_t size_bytes, struct vm_request *ret_request,
		      struct base_error *err)
{
	json_error_t json_error;
	json_auto_t *object = json_loadb(line, size_bytes, JSON_REJECT_DUPLICATES, &json_error);
	const json_t *id = NULL;
	const char *name = NULL;

	memset(ret_request, 0, sizeof(*ret_request));
	if (object == NULL)
		return base_fail(err, -EBADMSG, "line of %zu bytes: %s: expected one JSON object",
				 size_bytes, show(json_error.text).text);
	if (!json_is_object(object))
		return base_fail(err, -EBADMSG, "line of %zu bytes: expected one JSON object",
				 size_bytes);
	id = json_object_get(object, "id");
	if (!json_is_integer(id) || json_integer_value(id) < 0)
		return base_fail(err, -EINVAL, "key 'id': expected an integer from 0");
	ret_request->id = json_integer_value(id);
	ret_request->has_id = true;
	name = json_string_value(json_object_get(object, "cmd"));
	if (name == NULL)
		return base_fail(err, -EINVAL, "key 'cmd': expected the name of a command");
	if (find_command(commands, command_count, name, &ret_request->command) < 0)
		return base_fail(err, -EINVAL, "command '%s': expected a known one",
				 show(name).text);
	return take_args(&commands[ret_request->command], object, ret_request, err);
}

const char *vm_error_name(int code)
{
	static const struct {
		int code;
		const char *name;
	} names[] = {
		{ -EINVAL, "EINVAL" },       { -EBADMSG, "EBADMSG" },
		{ -EPROTO, "EPROTO" },       { -ESTALE, "ESTALE" },
		{ -ETIMEDOUT, "ETIMEDOUT" }, { -EAGAIN, "EAGAIN" },
		{ -ECANCELED, "ECANCELED" }, { -ENOMEM, "ENOMEM" },
		{ -ENOSPC, "ENOSPC" },       { -ENOTSUP, "ENOTSUP" },
		{ -EACCES, "EACCES" },       { -EPERM, "EPERM" },
		{ -EEXIST, "EEXIST" },       { -ENOENT, "ENOENT" },
		{ -ERANGE, "ERANGE" },       { -EBUSY, "EBUSY" },
		{ -EROFS, "EROFS" },         { -EDQUOT, "EDQUOT" },
		{ -EFBIG, "EFBIG" },         { -ENAMETOOLONG, "ENAMETOOLONG" },
		{ -ENOTCONN, "ENOTCONN" },
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i].code == code)
			return names[i].name;
	return "EIO";
}

json_t *vm_json_hex(uint64_t number)
{
	return json_sprintf("0x%" PRIx64, number);
}

/* The object as a line; takes it. */
static char *to_line(json_t *object)
{
	json_auto_t *owned = object;
	BASE_FREE char *text = NULL;
	size_t length = 0;
	char *line = NULL;

	if (owned == NULL)
		return NULL;
	text = json_dumps(owned, JSON_COMPACT | JSON_PRESERVE_ORDER);
	if (text == NULL)
		return NULL;
	length = strlen(text);
	line = realloc(text, length + 2);
	if (line == NULL)
		return NULL;
	text = NULL; /* realloc took it */
	line[length] = '\n';
	line[length + 1] = '\0';
	return line;
}

static json_t *id_value(bool has_id, int64_t id)
{
	return has_id ? json_integer(id) : json_null();
}

char *vm_answer_encode(bool has_id, int64_t id, json_t *result)
{
	if (result == NULL)
		result = json_object();
	return to_line(json_pack("{s:o, s:b, s:o}", "id", id_value(has_id, id), "ok", 1, "result",
				 result));
}

char *vm_refusal_encode(bool has_id, int64_t id, const struct base_error *err)
{
	/* Text may hold bytes of a path that are no UTF-8; JSON cannot. */
	json_t *text = json_string(err->text);

	if (text == NULL)
		text = json_string(show(err->text).text);
	return to_line(json_pack("{s:o, s:b, s:{s:s, s:o}}", "id", id_value(has_id, id), "ok", 0,
				 "error", "code", vm_error_name(err->code), "text", text));
}

char *vm_event_encode(const char *event, json_t *fields)
{
	json_auto_t *object = json_pack("{s:s}", "event", event);
	json_auto_t *owned = fields;

	if (object == NULL || (owned != NULL && json_object_update(object, owned) < 0))
		return NULL;
	return to_line(base_take(&object));
}
