# Turns files, one after another, into a C array, so that a program carries them along:
#   cmake "-DINPUT=page.html|page.js" -DOUTPUT=page.c -DSYMBOL=page -P cmake/embed.cmake
# defines `const unsigned char page[]` and `const size_t page_size`.
string(REPLACE "|" ";" files "${INPUT}")
set(bytes)
foreach(file IN LISTS files)
  file(READ "${file}" more HEX)
  string(APPEND bytes "${more}")
endforeach()
string(LENGTH "${bytes}" digits)
math(EXPR size "${digits} / 2")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
file(WRITE "${OUTPUT}" "#include <stddef.h>
extern const unsigned char ${SYMBOL}[];
extern const size_t ${SYMBOL}_size;
const unsigned char ${SYMBOL}[] = {\n${bytes}};
const size_t ${SYMBOL}_size = ${size};
")
