# Turns a file into a C array, so that a program carries it along:
#   cmake -DINPUT=data.tsv -DOUTPUT=data.c -DSYMBOL=data -P cmake/embed.cmake
# defines `const unsigned char data[]` and `const size_t data_size`.
file(READ "${INPUT}" bytes HEX)
string(LENGTH "${bytes}" digits)
math(EXPR size "${digits} / 2")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
file(WRITE "${OUTPUT}" "#include <stddef.h>
extern const unsigned char ${SYMBOL}[];
extern const size_t ${SYMBOL}_size;
const unsigned char ${SYMBOL}[] = {\n${bytes}};
const size_t ${SYMBOL}_size = ${size};
")
