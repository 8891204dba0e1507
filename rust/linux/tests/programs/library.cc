// SPDX-License-Identifier: MIT OR Apache-2.0
// A dynamic C++ program: constructors, exceptions over library frames, thread-local storage, streams, symbols found at run time.
#include <cmath>
#include <dlfcn.h>
#include <fstream>
#include <iostream>
#include <map>
#include <regex>
#include <stdexcept>
#include <string>
#include <sys/auxv.h>
#include <vector>

namespace {

struct Announced {
    Announced() { std::cout << "constructed\n"; }
    ~Announced() { std::cout << "destroyed\n"; }
} announced;

thread_local std::vector<int> numbers = {1, 2, 3};

int deep(int depth) {
    if (depth == 0) throw std::runtime_error("from the depth");
    return deep(depth - 1) + 1;
}

} // namespace

int main(int argc, char **argv) {
    std::cout << argc << " " << numbers.size() << "\n";
    try {
        std::cout << deep(50) << "\n";
    } catch (const std::exception &error) {
        std::cout << error.what() << "\n";
    }
    try {
        std::cout << std::vector<int>(3).at(7) << "\n";
    } catch (const std::out_of_range &) {
        std::cout << "out of range\n";
    }
    std::map<std::string, double> map;
    for (int i = 0; i < 1000; i++)
        map["key " + std::to_string(i)] = std::sqrt(i);
    std::cout << map.size() << " " << map["key 144"] << "\n";
    std::cout << std::regex_replace("a b c", std::regex("[ab]"), "<$&>") << "\n";
    using Function = double (*)(double);
    void *library = dlopen("libm.so.6", RTLD_NOW);
    auto cosine = reinterpret_cast<Function>(library ? dlsym(library, "cos") : nullptr);
    std::cout << (library != nullptr) << " " << (cosine ? cosine(0) : -1) << "\n";
    std::cout << (dlopen("libnothing.so", RTLD_NOW) == nullptr) << "\n";
    std::ifstream maps("/proc/self/maps");
    bool named = false;
    for (std::string line; std::getline(maps, line);)
        named = named || line.find("libstdc++") != std::string::npos;
    std::cout << "libstdc++ is mapped " << named << "\n";
    std::cout << "interpreter " << (getauxval(AT_BASE) != 0) << ", entry " << (getauxval(AT_ENTRY) != 0) << "\n";
    Dl_info info;
    std::cout << (dladdr(reinterpret_cast<void *>(&main), &info) != 0) << " "
              << (std::string(info.dli_fname) == argv[0]) << "\n";
    return 0;
}
