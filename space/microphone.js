// Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
// Says why the microphone does not start; Gradio itself stays silent about it. The words are attributes of the box.
(() => {
  const show = (reason) => {
    const box = document.querySelector("#fo-microphone");
    if (!box) return;
    box.textContent = reason ? box.dataset[reason] : "";
    box.hidden = !reason;
  };
  const devices = navigator.mediaDevices;
  if (!devices || !devices.getUserMedia) {
    document.addEventListener("click", (event) => {
      if (event.target.closest?.("#fo-question button")) show("insecure");
    });
    return;
  }
  const open = devices.getUserMedia.bind(devices);
  devices.getUserMedia = (wanted) =>
    open(wanted).then(
      (stream) => {
        show("");
        return stream;
      },
      (error) => {
        show(["NotFoundError", "OverconstrainedError"].includes(error.name) ? "missing" : "refused");
        throw error;
      },
    );
})();
