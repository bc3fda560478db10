// The opcodes of pickles, protocols 0 to 5, with the names of the Python library's pickletools (read at 3.11).
#pragma once

#include <cstdint>
#include <string_view>

namespace memscope::snapshot {

enum class Opcode : std::uint8_t {
  MARK = '(',
  EMPTY_TUPLE = ')',
  STOP = '.',
  POP = '0',
  POP_MARK = '1',
  DUP = '2',
  BINBYTES = 'B',
  SHORT_BINBYTES = 'C',
  FLOAT = 'F',
  BINFLOAT = 'G',
  INT = 'I',
  BININT = 'J',
  BININT1 = 'K',
  LONG = 'L',
  BININT2 = 'M',
  NONE = 'N',
  PERSID = 'P',
  BINPERSID = 'Q',
  REDUCE = 'R',
  STRING = 'S',
  BINSTRING = 'T',
  SHORT_BINSTRING = 'U',
  UNICODE = 'V',
  BINUNICODE = 'X',
  EMPTY_LIST = ']',
  APPEND = 'a',
  BUILD = 'b',
  GLOBAL = 'c',
  DICT = 'd',
  APPENDS = 'e',
  GET = 'g',
  BINGET = 'h',
  INST = 'i',
  LONG_BINGET = 'j',
  LIST = 'l',
  OBJ = 'o',
  PUT = 'p',
  BINPUT = 'q',
  LONG_BINPUT = 'r',
  SETITEM = 's',
  TUPLE = 't',
  SETITEMS = 'u',
  EMPTY_DICT = '}',
  PROTO = 0x80,
  NEWOBJ = 0x81,
  EXT1 = 0x82,
  EXT2 = 0x83,
  EXT4 = 0x84,
  TUPLE1 = 0x85,
  TUPLE2 = 0x86,
  TUPLE3 = 0x87,
  NEWTRUE = 0x88,
  NEWFALSE = 0x89,
  LONG1 = 0x8A,
  LONG4 = 0x8B,
  SHORT_BINUNICODE = 0x8C,
  BINUNICODE8 = 0x8D,
  BINBYTES8 = 0x8E,
  EMPTY_SET = 0x8F,
  ADDITEMS = 0x90,
  FROZENSET = 0x91,
  NEWOBJ_EX = 0x92,
  STACK_GLOBAL = 0x93,
  MEMOIZE = 0x94,
  FRAME = 0x95,
  BYTEARRAY8 = 0x96,
  NEXT_BUFFER = 0x97,
  READONLY_BUFFER = 0x98,
};

// The name of an opcode that runs code; empty for another.
constexpr std::string_view name_of_call(Opcode opcode) {
  switch (opcode) {
    case Opcode::OBJ:
      return "OBJ";
    case Opcode::NEWOBJ:
      return "NEWOBJ";
    case Opcode::NEWOBJ_EX:
      return "NEWOBJ_EX";
    case Opcode::REDUCE:
      return "REDUCE";
    case Opcode::BUILD:
      return "BUILD";
    case Opcode::PERSID:
      return "PERSID";
    case Opcode::BINPERSID:
      return "BINPERSID";
    default:
      return {};
  }
}

}  // namespace memscope::snapshot
