// SPDX-License-Identifier: MIT OR Apache-2.0

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <functional>
#include <iostream>
#include <string>
#include <thread>
#include <utility>

#include <drogon/HttpAppFramework.h>
#include <drogon/WebSocketController.h>
#include <mayfly/plugin.hpp>

namespace {

void report(const drogon::HttpRequestPtr & /*request*/,
            std::function<void(const drogon::HttpResponsePtr &)> &&callback) {
    const auto response = drogon::HttpResponse::newHttpResponse(drogon::k200OK, drogon::CT_APPLICATION_JSON);
    response->setBody(drogon::app().getPlugin<mayfly::SandboxPlugin>()->server()->report_json());
    callback(response);
}

std::atomic<int> connections = 0;

void count(const trantor::TcpConnectionPtr &connection) { connections += connection->connected() ? 1 : -1; }

void counted(const drogon::HttpRequestPtr & /*request*/,
             std::function<void(const drogon::HttpResponsePtr &)> &&callback) {
    const auto response = drogon::HttpResponse::newHttpResponse();
    response->setBody(std::to_string(connections.load()));
    callback(response);
}

void nobodys(const drogon::HttpRequestPtr & /*request*/,
             std::function<void(const drogon::HttpResponsePtr &)> &&callback) {
    callback(drogon::HttpResponse::newHttpResponse(drogon::k410Gone, drogon::CT_NONE));
}

// Like an application that looks the client up in a database: the request goes on later, on another thread.
void look_up(const drogon::HttpRequestPtr &request, drogon::AdviceCallback &&answer,
             drogon::AdviceChainCallback &&go_on) {
    if (request->getHeader("x-stranger") == "yes") {
        answer(drogon::HttpResponse::newHttpResponse(drogon::k403Forbidden, drogon::CT_NONE));
    } else if (request->getHeader("x-unknown") == "yes") {
        // An answer by a thread of the application's own, which has no loop, and goes on for a while.
        std::thread([answer = std::move(answer)] {
            answer(drogon::HttpResponse::newNotFoundResponse());
            std::this_thread::sleep_for(std::chrono::milliseconds(500));
        }).detach();
    } else if (request->getHeader("x-look-up") == "yes") {
        drogon::app().getLoop()->queueInLoop(std::move(go_on));
    } else {
        go_on();
    }
}

// Says what it hears.
class Parrot final : public drogon::WebSocketController<Parrot> {
  public:
    WS_PATH_LIST_BEGIN
    WS_PATH_ADD("/parrot");
    WS_PATH_LIST_END

    void handleNewMessage(const drogon::WebSocketConnectionPtr &connection, std::string &&message,
                          const drogon::WebSocketMessageType &type) override {
        if (type == drogon::WebSocketMessageType::Text) {
            connection->send(message);
        }
    }
    void handleNewConnection(const drogon::HttpRequestPtr & /*request*/,
                             const drogon::WebSocketConnectionPtr & /*connection*/) override {}
    void handleConnectionClosed(const drogon::WebSocketConnectionPtr & /*connection*/) override {}
};

} // namespace

int main(int /*argc*/, char **argv) {
    try {
        mayfly::require_plugin();
        drogon::app().registerHandler("/report", &report);
        drogon::app().registerHandler("/connections", &counted);
        drogon::app().registerPreRoutingAdvice(&look_up);
        if (std::getenv("CONSUMER_KEEPS_DROGONS_HANDLER") != nullptr) {
            drogon::app().setDefaultHandler(&nobodys);
        } else {
            mayfly::set_default_handler(&nobodys);
        }
        if (std::getenv("CONSUMER_TAKES_THE_CALLBACK") != nullptr) {
            drogon::app().setConnectionCallback(&count);
        } else {
            mayfly::set_connection_callback(&count);
        }
        drogon::app().loadConfigFile(argv[1]).run();
    } catch (const std::exception &error) {
        std::cerr << error.what() << std::endl;
        std::_Exit(EXIT_FAILURE);
    }
    return EXIT_SUCCESS;
}
