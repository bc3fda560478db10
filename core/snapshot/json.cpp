#include "snapshot/json.h"

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace memscope::snapshot {
namespace {

bool is_space(std::uint8_t byte) { return byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t'; }

bool is_digit(std::uint8_t byte) { return byte >= '0' && byte <= '9'; }

bool is_of_number(std::uint8_t byte) {
  return is_digit(byte) || byte == '-' || byte == '+' || byte == '.' || byte == 'e' || byte == 'E';
}

[[noreturn]] void refuse_text() { throw Refused(Status::kNotJson); }

// Whether a token is a number as JSON writes one: what is not an integer is read as a float outside.
bool is_number(Bytes token) {
  std::size_t at = 0;
  const auto peek = [&] { return at < token.size() ? token[at] : std::uint8_t{0}; };
  const auto digits = [&] {
    const std::size_t first = at;
    while (is_digit(peek())) {
      ++at;
    }
    return at - first;
  };
  at += peek() == '-' ? 1 : 0;
  const bool leads_with_zero = peek() == '0';
  const std::size_t n_whole = digits();
  if (n_whole == 0 || (leads_with_zero && n_whole > 1)) {
    return false;
  }
  if (peek() == '.') {
    ++at;
    if (digits() == 0) {
      return false;
    }
  }
  if (peek() == 'e' || peek() == 'E') {
    ++at;
    at += peek() == '+' || peek() == '-' ? 1 : 0;
    if (digits() == 0) {
      return false;
    }
  }
  return at == token.size();
}

// Surrogates that stand alone become three bytes as well, which the text's reader shows as escapes.
void add_utf8(std::vector<std::uint8_t>& text, std::uint32_t code) {
  const auto add = [&](std::uint32_t byte) { text.push_back(static_cast<std::uint8_t>(byte)); };
  if (code < 0x80) {
    add(code);
  } else if (code < 0x800) {
    add(0xC0 | (code >> 6));
    add(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    add(0xE0 | (code >> 12));
    add(0x80 | ((code >> 6) & 0x3F));
    add(0x80 | (code & 0x3F));
  } else {
    add(0xF0 | (code >> 18));
    add(0x80 | ((code >> 12) & 0x3F));
    add(0x80 | ((code >> 6) & 0x3F));
    add(0x80 | (code & 0x3F));
  }
}

std::optional<std::uint8_t> plain_escape(std::uint8_t letter) {
  constexpr std::string_view kLetters = "\"\\/bfnrt";
  constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
  const std::size_t at = kLetters.find(static_cast<char>(letter));
  return at == std::string_view::npos ? std::nullopt : std::optional(static_cast<std::uint8_t>(kMeanings[at]));
}

}  // namespace

Status JsonReader::run() {
  try {
    do {
      window_.start_opcode();
      std::uint8_t byte = window_.byte();
      while (is_space(byte)) {
        window_.start_opcode();
        byte = window_.byte();
      }
      token(byte);
    } while (!open_.empty());
    tape_->seal(stack_.back());
    offset_ = window_.offset() + 1;
    return Status::kStopped;
  } catch (const NeedInput&) {
    return Status::kNeedInput;
  } catch (const Refused& refused) {
    offset_ = window_.offset();
    return refused.status;
  }
}

void JsonReader::token(std::uint8_t first) {
  switch (expects_) {
    case Expects::kValueOrEnd:
      if (first == ']') {
        return close(BoxKind::kList);
      }
      [[fallthrough]];
    case Expects::kValue:
      return start_value(first);
    case Expects::kKeyOrEnd:
      if (first == '}') {
        return close(BoxKind::kDict);
      }
      [[fallthrough]];
    case Expects::kKey:
      if (first != '"') {
        refuse_text();
      }
      push(text());
      expects_ = Expects::kColon;
      return;
    case Expects::kColon:
      if (first != ':') {
        refuse_text();
      }
      expects_ = Expects::kValue;
      return;
    case Expects::kCommaOrEnd:
      if (first == ']' || first == '}') {
        return close(first == ']' ? BoxKind::kList : BoxKind::kDict);
      }
      if (first != ',') {
        refuse_text();
      }
      expects_ = open_.back().kind == BoxKind::kList ? Expects::kValue : Expects::kKey;
      return;
  }
}

void JsonReader::start_value(std::uint8_t first) {
  if (first == '{' || first == '[') {
    return open(first == '[' ? BoxKind::kList : BoxKind::kDict);
  }
  if (open_.empty()) {
    refuse_text();  // a single value is no snapshot
  }
  switch (first) {
    case '"':
      push(text());
      break;
    case 't':
      word("rue", Value(Constant::kTrue));
      break;
    case 'f':
      word("alse", Value(Constant::kFalse));
      break;
    case 'n':
      word("ull", Value(Constant::kNone));
      break;
    case 'N':
      word_of_float("NaN");
      break;
    case 'I':
      word_of_float("Infinity");
      break;
    default:
      number();
  }
  expects_ = Expects::kCommaOrEnd;
}

void JsonReader::open(BoxKind kind) {
  if (open_.size() >= kMaxDepth) {
    throw Refused(Status::kTooDeep);
  }
  open_.push_back({kind, stack_.size()});
  expects_ = kind == BoxKind::kList ? Expects::kValueOrEnd : Expects::kKeyOrEnd;
}

void JsonReader::close(BoxKind kind) {
  if (open_.back().kind != kind) {
    refuse_text();
  }
  const std::size_t first = open_.back().first;
  const std::span<const Value> values = std::span(stack_).subspan(first);
  Value box;
  if (kind == BoxKind::kDict && values.size() <= 2 * kMaxSharedKeys) {
    box = tape_->add_shared(kind, values);
  } else {
    box = tape_->add_box(kind);
    kind == BoxKind::kDict ? tape_->set_items(box, values) : tape_->append(box, values);
  }
  stack_.resize(first);
  open_.pop_back();
  push(box);
  expects_ = Expects::kCommaOrEnd;
}

void JsonReader::push(Value value) {
  make_room(stack_, *tape_->budget());
  stack_.push_back(value);
}

void JsonReader::push(const Number& number) {
  const auto* wide = std::get_if<Wide>(&number);
  push(wide != nullptr ? tape_->add_wide(wide->bits, wide->kind) : Value::integer(std::get<std::int64_t>(number)));
}

// The text behind a quotation mark.
Value JsonReader::text() {
  const Bytes ahead = window_.ahead();
  const auto end = std::ranges::find_if(ahead, [](std::uint8_t b) { return b == '"' || b == '\\' || b < 0x20; });
  const auto n = static_cast<std::size_t>(end - ahead.begin());
  if (n > ByteWindow::kMaxTextBytes) {
    throw Refused(Status::kTooLong);
  }
  if (end != ahead.end() && *end == '"') {
    window_.skip(n + 1);
    return tape_->add_text(ahead.first(n));
  }
  std::vector<std::uint8_t> text;
  for (std::uint8_t byte = window_.byte(); byte != '"'; byte = window_.byte()) {
    if (byte < 0x20) {
      refuse_text();
    }
    byte == '\\' ? escaped(text) : text.push_back(byte);
    if (text.size() > ByteWindow::kMaxTextBytes) {
      throw Refused(Status::kTooLong);
    }
  }
  return tape_->add_text(text);
}

void JsonReader::escaped(std::vector<std::uint8_t>& text) {
  const std::uint8_t letter = window_.byte();
  if (const auto meaning = plain_escape(letter)) {
    text.push_back(*meaning);
    return;
  }
  if (letter != 'u') {
    refuse_text();
  }
  std::uint32_t code = four_hex();
  if (code >= 0xD800 && code < 0xDC00) {
    const Bytes next = window_.ahead();
    if (next.size() < 2) {
      throw NeedInput{};  // a quotation mark, and what closes the dict or list, at least
    }
    if (next[0] == '\\' && next[1] == 'u') {
      window_.skip(2);
      const std::uint32_t low = four_hex();
      if (low >= 0xDC00 && low < 0xE000) {
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
      } else {
        add_utf8(text, code);
        code = low;
      }
    }
  }
  add_utf8(text, code);
}

std::uint32_t JsonReader::four_hex() {
  std::uint32_t code = 0;
  for (const std::uint8_t digit : window_.bytes(4)) {
    const std::size_t value = std::string_view("0123456789abcdef").find(static_cast<char>(digit | 0x20));
    if (value == std::string_view::npos || (!is_digit(digit) && digit < 'A')) {
      refuse_text();
    }
    code = 16 * code + static_cast<std::uint32_t>(value);
  }
  return code;
}

// A number from its first byte on; the byte behind it must be at hand, as only that ends it.
void JsonReader::number() {
  const Bytes rest = window_.rest();
  const auto end = std::ranges::find_if_not(rest, is_of_number);
  const Bytes token = rest.first(static_cast<std::size_t>(end - rest.begin()));
  if (token.size() > ByteWindow::kMaxLineBytes) {
    throw Refused(Status::kTooLong);
  }
  if (token.size() == 1 && token[0] == '-' && end != rest.end() && *end == 'I') {
    window_.skip(1);
    return word_of_float("-Infinity");
  }
  if (token.empty()) {
    refuse_text();
  }
  if (end == rest.end()) {
    throw NeedInput{};
  }
  if (!is_number(token)) {
    throw Refused(Status::kBadNumber);
  }
  window_.skip(token.size() - 1);
  if (std::ranges::all_of(token, [](std::uint8_t byte) { return is_digit(byte) || byte == '-'; })) {
    push(decimal(token));
  } else {
    push(Wide{static_cast<std::int64_t>(tape_->add_text(token).id()), WideKind::kFloatText});
  }
}

void JsonReader::word(std::string_view rest, Value value) {
  const Bytes bytes = window_.bytes(rest.size());
  if (!std::ranges::equal(bytes, rest, [](std::uint8_t a, char b) { return a == static_cast<std::uint8_t>(b); })) {
    refuse_text();
  }
  push(value);
}

// A word that Python's json writes in place of a float that is none, read but for its first letters.
void JsonReader::word_of_float(std::string_view word) {
  const std::size_t n_read = word.starts_with('-') ? 2 : 1;
  const Bytes bytes = window_.bytes(word.size() - n_read);
  if (!std::ranges::equal(bytes, word.substr(n_read),
                          [](std::uint8_t a, char b) { return a == static_cast<std::uint8_t>(b); })) {
    refuse_text();
  }
  const Bytes text(reinterpret_cast<const std::uint8_t*>(word.data()), word.size());
  push(Wide{static_cast<std::int64_t>(tape_->add_text(text).id()), WideKind::kFloatText});
}

}  // namespace memscope::snapshot
