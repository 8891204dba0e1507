// SPDX-License-Identifier: MIT OR Apache-2.0

#define DROGON_TEST_MAIN
#include <drogon/drogon_test.h>

int main(int argc, char **argv) { return drogon::test::run(argc, argv); }
