// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Exercises what the C++ runtime needs: unwinding (it finds the program's tables through the auxiliary vector),
// type information, iostreams, thread-local construction, allocation failure.

#include "report.h"

#include <algorithm>
#include <any>
#include <array>
#include <charconv>
#include <chrono>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <new>
#include <numeric>
#include <random>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

struct Counted {
    static inline int alive = 0;
    Counted() { ++alive; }
    Counted(const Counted &) = delete;
    Counted &operator=(const Counted &) = delete;
    ~Counted() { --alive; }
};

struct Lazy {
    static inline int made = 0;
    int value;
    Lazy() : value(++made) {}
};

thread_local Lazy lazy;
const std::string built_at_start(100, 's');

struct Base {
    virtual ~Base() = default;
};
struct Derived : Base {};

class Failure : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

int throw_from(int depth) {
    const Counted counted;
    if (depth == 0) throw Failure("from far below");
    return throw_from(depth - 1) + 1;
}

void exceptions() {
    for (const int depth : {0, 1, 100}) {
        try {
            throw_from(depth);
        } catch (const std::exception &error) {
            report("caught at depth %d: %s, type: %s, alive %d\n", depth, error.what(),
                   dynamic_cast<const Failure *>(&error) ? "Failure" : "?", Counted::alive);
        }
    }
    std::exception_ptr kept;
    try {
        try {
            throw 42;
        } catch (int number) {
            throw std::out_of_range("after " + std::to_string(number));
        }
    } catch (...) {
        kept = std::current_exception();
    }
    try {
        std::rethrow_exception(kept);
    } catch (const std::logic_error &error) {
        report("rethrown: %s\n", error.what());
    }
    try {
        volatile std::size_t too_much = std::size_t{1} << 60;
        void *volatile huge = ::operator new(too_much); // Volatile: the compiler may drop an unused value.
        ::operator delete(huge);
        report("2^60 bytes: allocated?\n");
    } catch (const std::bad_alloc &) {
        report("2^60 bytes: bad_alloc\n");
    }
    try {
        const Base base;
        static_cast<void>(dynamic_cast<const Derived &>(base));
    } catch (const std::bad_cast &) {
        report("bad_cast\n");
    }
}

void containers() {
    std::vector<int> numbers(100000);
    std::iota(numbers.begin(), numbers.end(), 0);
    std::shuffle(numbers.begin(), numbers.end(), std::mt19937(7));
    std::sort(numbers.begin(), numbers.end());
    std::map<std::string, int> tree;
    std::unordered_map<std::string, int> table;
    for (int i = 0; i < 10000; ++i) {
        tree[std::to_string(i)] += i;
        table[std::to_string(i % 100)] += 1;
    }
    report("sorted: %s, tree %zu, table %zu x %d\n", std::is_sorted(numbers.begin(), numbers.end()) ? "yes" : "NO",
           tree.size(), table.size(), table["42"]);
    const std::function<int(int)> fibonacci = [&](int n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); };
    const std::any any = std::string("any");
    report("function %d, any %s\n", fibonacci(20), std::any_cast<const std::string &>(any).c_str());
}

void text() {
    std::ostringstream out;
    out << std::hex << 255 << ' ' << std::boolalpha << true << ' ' << 1.5 << ' ' << built_at_start.size();
    std::istringstream in("12 0x1f word");
    int decimal = 0, hexadecimal = 0;
    std::string word;
    in >> decimal >> std::hex >> hexadecimal >> word;
    std::array<char, 32> digits{};
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), 0.1).ptr;
    report("stream [%s] %d %d %s, to_chars %s\n", out.str().c_str(), decimal, hexadecimal, word.c_str(),
           std::string(digits.data(), end).c_str());
    std::smatch match;
    const std::string date = "on 2026-11-21";
    const bool found = std::regex_search(date, match, std::regex(R"((\d+)-(\d+)-(\d+))"));
    report("regex %s\n", found ? match[2].str().c_str() : "no match");
    std::cout << "cout works" << std::endl;
}

void others() {
    report("thread_local %d, made", lazy.value);
    report(" %d\n", Lazy::made);
    const auto before = std::chrono::steady_clock::now();
    report("steady: %s\n", std::chrono::steady_clock::now() >= before ? "yes" : "NO");
    std::random_device device;
    const auto one = device(), two = device(), three = device();
    report("random_device: %s\n", one != two || two != three ? "differs" : "REPEATS");
}

} // namespace

int main() {
    exceptions();
    containers();
    text();
    others();
    report_serve();
}
