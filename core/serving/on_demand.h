// Memory that is a function of the tokens held: blocks or pages, taken as a sequence grows.
#pragma once

#include "serving/manager.h"

namespace memscope::serving {

class OnDemand final : public Manager {
 public:
  using Manager::Manager;

 private:
  bool admit(Request& request, const Start& start) override;
  bool take(const Request& request, std::int64_t n_tokens) override;
  void give_back(const Request& request) override;
};

}  // namespace memscope::serving
